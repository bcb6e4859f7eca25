import type { BatchField } from "#lib/core/batch";
import { LockstepError } from "#lib/core/errors/index";
import type { Classes, Label, LabelReader, LabelTable } from "#lib/core/labels";
import { anyNumber, isFraction, listText } from "./label-text.js";

/** Named in an error that lists labels. */
const maxListedLabels = 20;
const truth = /^(true|false)$/i;

/** The class of a row by number; below 0 in a row of padding. */
export const labelField: BatchField = { name: "label", dtype: "int32", perRow: 1 };

/** One label a row: a class by name, by number, or true and false. */
export const classLabels: LabelReader = {
  read: readClass,
  suits: (first) => !("problem" in readClass(first)) && !isFraction(first),
  table: () => new ClassTable(),
};

/** What a class may be called by: a list names several. */
export function readClass(
  value: unknown,
): { readonly label: string | number | boolean } | { readonly problem: string } {
  if (typeof value === "string" && listText.test(value)) {
    return { problem: "is a list as text: several labels stand in JSON, JSON Lines or Parquet" };
  }
  if (typeof value === "string" || typeof value === "boolean") return { label: value };
  if (typeof value !== "number" || !Number.isFinite(value)) {
    return { problem: "is neither text nor a number" };
  }
  if (Number.isInteger(value) && !Number.isSafeInteger(value)) {
    return { problem: "has more digits than a number keeps: write it in quotes" };
  }
  return { label: value };
}

interface SeenLabel {
  readonly text: string;
  /** Whether it stood in its file as a number, or as true or false. */
  readonly isTyped: boolean;
  readonly place: string;
}

/** How labels are told apart: the kind of all that training has. */
type Kind = "names" | "numbers" | "truth";

/** Labels as they were read, and what names they make together. */
export class ClassTable implements LabelTable {
  readonly #numbers = new Map<string, number>();
  readonly #labels: SeenLabel[] = [];

  /** @param place where the label stands, for messages */
  numberOf(label: Label, place: string): number {
    // A table of text holds numbers as text.
    const text = String(label);
    let number = this.#numbers.get(text);
    if (number === undefined) {
      number = this.#labels.length;
      this.#numbers.set(text, number);
      this.#labels.push({ text, isTyped: typeof label !== "string", place });
    }
    return number;
  }

  /**
   * The classes that training has. Names are numbered in their sorted order, as the examples of
   * transformers number them, numbers in the order of numbers: 0, 1, 2 and so on are the classes'
   * numbers, others (1 to 5; -1, 0, 1) their names. 1 and 1.0 are one number, and so are a number and
   * its text; false comes before true.
   *
   * @param trained numbers of the labels of the training side
   * @param known classes that the model has already: labels that are all among them keep its numbers
   * @param minClasses fewer are refused
   * @returns the names, and of each label of the table the class; -1 where training has none of it
   * @throws E_LABELS_INVALID
   */
  namesOf(
    trained: Iterable<number>,
    known: readonly string[],
    minClasses: number,
  ): { readonly names: readonly string[]; readonly classOf: Int32Array } {
    const found = [...new Set(trained)].map((number) => this.#labels[number] ?? nothing);
    const kind = kindOf(found);
    const byName = new Map(known.map((name, index) => [canonical(name, kind), index]));
    const isKnown =
      found.length > 0 && found.every(({ text }) => byName.has(canonical(text, kind)));
    // Where names are numbers themselves, a number that is none of them is no place among them.
    const isNumber =
      kind === "numbers" &&
      !known.some((name) => anyNumber.test(name)) &&
      found.every(({ text }) => isNumberBelow(text, known));
    const names =
      isKnown || isNumber ? known : namesOf(found, { kind, minClasses, all: this.#labels });
    const indexOf = new Map(names.map((name, index) => [canonical(name, kind), index]));
    const classOf = this.#labels.map(({ text }) => {
      const own = canonical(text, kind);
      const ofNumber = names === known && !isKnown && isNumberBelow(own, known);
      return indexOf.get(own) ?? (ofNumber ? Number(own) : indexOf.get(`LABEL_${own}`)) ?? -1;
    });
    return { names, classOf: Int32Array.from(classOf) };
  }

  classesOf(trained: Iterable<number>, known: readonly string[] = []): Classes {
    const { names, classOf } = this.namesOf(trained, known, 2);
    return {
      names,
      fields: [labelField],
      targetsOf(number) {
        const label = classOf[number] ?? -1;
        return label < 0 ? undefined : { [labelField.name]: Int32Array.of(label) };
      },
      shownOf: (targets) => targets[labelField.name]?.[0] ?? -1,
    };
  }

  unseen(number: number, { names }: Classes): LockstepError {
    const { text: label, place } = this.#labels[number] ?? nothing;
    return new LockstepError("E_LABEL_UNSEEN", {
      place,
      label,
      known: names.slice(0, maxListedLabels),
    });
  }
}

const nothing: SeenLabel = { text: "", isTyped: false, place: "" };

function kindOf(found: readonly SeenLabel[]): Kind {
  if (found.length === 0) return "names";
  if (found.every(({ text }) => truth.test(text))) return "truth";
  // 007 is a name that looks like a number, and so is what stands beside it.
  const isNumber = ({ text }: SeenLabel): boolean =>
    anyNumber.test(text) && !/^[+-]?0\d/.test(text);
  return found.every(isNumber) ? "numbers" : "names";
}

/** What labels that are the same have in common. */
function canonical(text: string, kind: Kind): string {
  if (kind === "truth") return text.toLowerCase();
  if (kind !== "numbers" || !anyNumber.test(text)) return text;
  const number = Number(text);
  // Digits beyond what a number keeps stay as they are written.
  return Number.isSafeInteger(number) ? String(number + 0) : text;
}

const isNumberBelow = (text: string, { length }: readonly string[]): boolean =>
  anyNumber.test(text) &&
  Number.isInteger(Number(text)) &&
  Number(text) >= 0 &&
  Number(text) < length;

interface Naming {
  readonly kind: Kind;
  readonly minClasses: number;
  /** The labels of rows that are kept for validation too. */
  readonly all: readonly SeenLabel[];
}

const refuse = (place: string, problem: string): never => {
  throw new LockstepError("E_LABELS_INVALID", { place, problem });
};

function namesOf(found: readonly SeenLabel[], { kind, minClasses, all }: Naming): string[] {
  const byName = new Map(found.toReversed().map((label) => [canonical(label.text, kind), label]));
  if (kind === "names" && found.every(({ text }) => anyNumber.test(text))) {
    const byNumber = new Map<number, SeenLabel>();
    for (const label of found) {
      const before = byNumber.get(Number(label.text));
      if (before !== undefined) {
        const both = `${before.text} (${before.place}) and ${label.text}`;
        refuse(label.place, `the labels ${both} are one number: write one of them throughout`);
      }
      byNumber.set(Number(label.text), label);
    }
  }
  const [first = nothing] = found;
  if (byName.size === 1 && minClasses > 1) {
    const other = all.find(({ text }) => canonical(text, kind) !== canonical(first.text, kind));
    const kept = other === undefined ? "" : `; ${keptOnly(other)}`;
    refuse(first.place, `all rows to train on have the label ${JSON.stringify(first.text)}${kept}`);
  }
  if (kind === "numbers") return namesOfNumbers(byName, all);
  const typed = found.find(({ isTyped }) => isTyped);
  if (kind === "names" && typed !== undefined) {
    const others = "other rows have a name for a label: write all of them as names, in quotes";
    refuse(typed.place, `the label is ${typed.text}, no name, and ${others}`);
  }
  return [...byName.keys()].sort((a, b) => (a < b ? -1 : 1));
}

/** A class that only rows kept for validation have. */
const keptOnly = ({ text, place }: SeenLabel): string =>
  `the label ${JSON.stringify(text)} (${place}) is only in rows that are kept for validation`;

function namesOfNumbers(
  byName: ReadonlyMap<string, SeenLabel>,
  all: readonly SeenLabel[],
): string[] {
  const fraction = [...byName.values()].find(({ text }) => !Number.isInteger(Number(text)));
  if (fraction !== undefined) {
    const advice = "a class is a name or a whole number; objective: regression learns numbers";
    refuse(fraction.place, `the label ${fraction.text} is no class: ${advice}`);
  }
  const names = [...byName.keys()].sort((a, b) => Number(a) - Number(b) || (a < b ? -1 : 1));
  const numbers = new Set(names.map(Number));
  if (!numbers.has(0) || [...numbers].some((number) => number < 0)) return names;
  const missing = names.findIndex((_, i) => !numbers.has(i));
  if (missing >= 0) {
    const last = names.at(-1) ?? "";
    const validated = all.find(({ text }) => anyNumber.test(text) && Number(text) === missing);
    const lacking =
      validated === undefined ? `no row has the label ${missing}` : keptOnly(validated);
    refuse(
      "training",
      `labels go from 0 to ${last}, and ${lacking}: add such rows, or write names for numbers`,
    );
  }
  return names.map((_, i) => `LABEL_${i}`);
}
