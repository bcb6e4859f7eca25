import { shownValue } from "#lib/core/shown-value";
import { type BatchField, countedField } from "#lib/core/batch";
import { LockstepError } from "#lib/core/errors/index";
import { counted } from "#lib/core/format";
import type { Classes, Label, LabelReader, LabelTable } from "#lib/core/labels";
import { anyNumber, isFraction, listText } from "./label-text.js";

/** A row's numbers, one an output. */
export const numbersField = (numOutputs: number): BatchField => ({
  name: "numbers",
  dtype: "float32",
  perRow: numOutputs,
});

/** A number a row, or a list of so many numbers. */
export const numberLabels: LabelReader = {
  read: readNumbers,
  suits: isFraction,
  table: () => new NumberTable(),
};

function readNumbers(
  value: unknown,
): { readonly label: number | readonly number[] } | { readonly problem: string } {
  if (!Array.isArray(value)) {
    const read = readNumber(value);
    return "problem" in read ? read : { label: read.number };
  }
  const label: number[] = [];
  for (const each of value) {
    const read = readNumber(typeof each === "string" ? each.trim() : each);
    if ("problem" in read) return { problem: `lists a value that ${read.problem}` };
    label.push(read.number);
  }
  return label.length === 0 ? { problem: "is a list without a number" } : { label };
}

function readNumber(value: unknown): { readonly number: number } | { readonly problem: string } {
  if (typeof value === "string" && listText.test(value)) {
    return { problem: "is a list as text: several numbers stand in JSON, JSON Lines or Parquet" };
  }
  const isNumber = typeof value === "string" ? anyNumber.test(value) : typeof value === "number";
  const number = Number(value);
  if (isNumber && Number.isFinite(Math.fround(number))) return { number };
  const shown = typeof value === "number" ? String(value) : shownValue(value);
  if (isNumber && Number.isFinite(number)) {
    return { problem: `is ${shown}, beyond what a float32 number holds` };
  }
  const isComma = typeof value === "string" && /^[+-]?\d+,\d+$/.test(value);
  const advice = isComma
    ? "a point stands before its decimals"
    : "objective: regression learns numbers, single_label_classification classes";
  return { problem: `is no number but ${shown}; ${advice}` };
}

/** Numbers of rows as they were read. */
class NumberTable implements LabelTable {
  readonly #labels: Label[] = [];
  /** Of the first label, and of those that have another number of numbers. */
  readonly #places = new Map<number, string>();

  numberOf(label: Label, place: string): number {
    const number = this.#labels.push(label) - 1;
    if (number === 0 || this.#widthOf(number) !== this.#widthOf(0)) this.#places.set(number, place);
    return number;
  }

  /** Where one of two labels of different widths stands; the first label's place is that of its width. */
  #placeOf(number: number): string {
    return this.#places.get(number) ?? this.#places.get(0) ?? "";
  }

  #widthOf(number: number): number {
    const label = this.#labels[number];
    return Array.isArray(label) ? label.length : 1;
  }

  /** Outputs are called as the model calls them where it has as many, else `LABEL_0`, `LABEL_1` and so on. */
  classesOf(trained: Iterable<number>, known: readonly string[] = []): Classes {
    let first: number | undefined;
    for (const number of trained) {
      first ??= number;
      const [width, numOutputs] = [this.#widthOf(number), this.#widthOf(first)];
      if (width === numOutputs) continue;
      const before = `${counted(numOutputs, "number")} (${this.#placeOf(first)})`;
      throw new LockstepError("E_LABELS_INVALID", {
        place: this.#placeOf(number),
        problem: `one row has ${before}, another ${width}, and all need as many`,
      });
    }
    const numOutputs = first === undefined ? 1 : this.#widthOf(first);
    return outputsOf(numOutputs, known, (number) => [this.#labels[number] ?? []].flat());
  }

  unseen(number: number, { names }: Classes): LockstepError {
    const width = this.#widthOf(number);
    return new LockstepError("E_DATA_ROW_FORMAT", {
      place: this.#placeOf(number),
      format: "classification",
      problem: `the label has ${counted(width, "number")}, and in the rows to train on ${names.length}`,
    });
  }
}

function outputsOf(
  numOutputs: number,
  known: readonly string[],
  labelOf: (number: number) => readonly unknown[],
): Classes {
  const field = numbersField(numOutputs);
  return {
    names:
      known.length === numOutputs
        ? known
        : Array.from({ length: numOutputs }, (_, i) => `LABEL_${i}`),
    areNumbers: true,
    fields: [field, countedField],
    targetsOf(number) {
      const label = labelOf(number);
      if (label.length !== numOutputs) return undefined;
      const numbers = Float32Array.from(label, Number);
      return { [field.name]: numbers, [countedField.name]: Int32Array.of(1) };
    },
    shownOf: ({ [field.name]: numbers = new Float32Array(0) }) => [...numbers],
  };
}
