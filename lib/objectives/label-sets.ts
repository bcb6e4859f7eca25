import type { BatchField } from "#lib/core/batch";
import { LockstepError } from "#lib/core/errors/index";
import type { Classes, Label, LabelReader, LabelTable } from "#lib/core/labels";
import { ClassTable, readClass } from "./class-labels.js";
import { isFraction } from "./label-text.js";

type Item = string | number | boolean;

/** Of each class 1 where it holds and 0 where not; below 0 in a row of padding. */
export const labelsField = (numLabels: number): BatchField => ({
  name: "labels",
  dtype: "float32",
  perRow: numLabels,
});

/** Several labels a row: a list of classes, or of each class 0 or 1. */
export const labelSets: LabelReader = {
  read: readLabels,
  table: () => new SetTable(),
};

function readLabels(
  value: unknown,
): { readonly label: readonly Item[] } | { readonly problem: string } {
  if (!Array.isArray(value)) {
    return {
      problem:
        'is no list: several labels stand in JSON, JSON Lines or Parquet as ["a", "b"], or as 0 or 1 for each class',
    };
  }
  const label: Item[] = [];
  for (const each of value) {
    const read = readClass(typeof each === "string" ? each.trim() : each);
    if ("problem" in read) return { problem: `lists a label that ${read.problem}` };
    if (read.label === "") return { problem: "lists an empty label" };
    label.push(read.label);
  }
  return { label };
}

interface SeenSet {
  readonly items: readonly Item[];
  /** The items' numbers among all labels. */
  readonly members: readonly number[];
  readonly place: string;
}

/** Lists as they were read, and the classes that they make together. */
class SetTable implements LabelTable {
  readonly #numbers = new Map<string, number>();
  readonly #sets: SeenSet[] = [];
  readonly #classes = new ClassTable();
  #isOfVectors = false;

  numberOf(label: Label, place: string): number {
    const items = Array.isArray(label) ? (label as readonly Item[]) : [label as Item];
    const key = JSON.stringify(items);
    let number = this.#numbers.get(key);
    if (number === undefined) {
      number = this.#sets.length;
      this.#numbers.set(key, number);
      const members = items.map((item) => this.#classes.numberOf(item, place));
      this.#sets.push({ items, members, place });
    }
    return number;
  }

  /**
   * Lists of one length that hold nothing but 0 and 1 say of each class whether it holds; others hold
   * classes, which are named and numbered as single labels are.
   */
  classesOf(trained: Iterable<number>, known: readonly string[] = []): Classes {
    const numbers = [...new Set(trained)];
    const found = numbers.flatMap((number) => this.#sets[number] ?? []);
    const [first] = found;
    const width = first?.items.length ?? 0;
    this.#isOfVectors = width > 1 && found.every(({ items }) => isVector(items, width));
    const classes = this.#isOfVectors ? this.#vectors(width, known) : this.#lists(found, known);
    this.#refuseOneSet(numbers, classes, known);
    return classes;
  }

  /** Where all rows say the same there is nothing to tell apart. */
  #refuseOneSet(trained: readonly number[], classes: Classes, known: readonly string[]): void {
    const sets = trained.map((number) => {
      const targets = classes.targetsOf(number);
      return targets === undefined ? [] : classes.shownOf(targets);
    });
    const shown = new Set(sets.map(String));
    if (shown.size > 1) return;
    const [only = []] = sets;
    const { place = "training" } = this.#sets[trained[0] ?? -1] ?? {};
    const labels = [only].flat().map((label) => classes.names[label]);
    if (labels.length === 0) throw invalid(place, "no row to train on has a label");
    // A model that has its classes may be trained on some of them.
    if (known.length > 0) return;
    throw invalid(place, `all rows to train on have the labels ${JSON.stringify(labels)}`);
  }

  #vectors(width: number, known: readonly string[]): Classes {
    const names =
      known.length === width ? known : Array.from({ length: width }, (_, i) => `LABEL_${i}`);
    return classesWith(names, (number) => {
      const { items = [] } = this.#sets[number] ?? {};
      return isVector(items, width) ? items.map(Number) : undefined;
    });
  }

  #lists(found: readonly SeenSet[], known: readonly string[]): Classes {
    // Rows that are kept for validation too: a score counts each label once.
    this.#refuseTwice((member) => member);
    const all = found.flatMap(({ members }) => members);
    if (all.length === 0) {
      throw invalid(found[0]?.place ?? "training", "no row to train on has a label");
    }
    const { names, classOf } = this.#classes.namesOf(all, known, 1);
    // 1 and 1.0 are one class.
    this.#refuseTwice((member) => classOf[member] ?? -1);
    return classesWith(names, (number) => {
      const values = names.map(() => 0);
      for (const member of this.#sets[number]?.members ?? []) {
        const label = classOf[member] ?? -1;
        if (label < 0) return undefined;
        values[label] = 1;
      }
      return values;
    });
  }

  /** @throws E_LABELS_INVALID for a list that holds a label twice; numbers below 0 are none */
  #refuseTwice(numberOf: (member: number) => number): void {
    for (const { items, members, place } of this.#sets) {
      const numbers = members.map(numberOf);
      const twice = numbers.findIndex((number, i) => number >= 0 && numbers.indexOf(number) !== i);
      if (twice < 0) continue;
      const advice = isFraction(items[twice])
        ? "objective: regression learns numbers"
        : "0 or 1 for each class is meant where all rows have as many";
      const problem = `a row lists ${JSON.stringify(items[twice])} twice; ${advice}`;
      throw invalid(place, problem);
    }
  }

  unseen(number: number, { names, targetsOf }: Classes): LockstepError {
    const { items = [], place = "" } = this.#sets[number] ?? {};
    const alone = this.#isOfVectors
      ? undefined
      : items.find((item) => targetsOf(this.numberOf([item], place)) === undefined);
    const label = alone === undefined ? JSON.stringify(items) : String(alone);
    return new LockstepError("E_LABEL_UNSEEN", { place, label, known: names.slice(0, 20) });
  }
}

const invalid = (place: string, problem: string): LockstepError =>
  new LockstepError("E_LABELS_INVALID", { place, problem });

const isVector = (items: readonly Item[], width: number): boolean =>
  items.length === width &&
  items.every((item) => typeof item !== "string" && [0, 1].includes(Number(item)));

/** @param valuesOf of a set's number: of each class 1 or 0; undefined where it has no place among them */
const classesWith = (
  names: readonly string[],
  valuesOf: (number: number) => readonly number[] | undefined,
): Classes => {
  const field = labelsField(names.length);
  return {
    names,
    fields: [field],
    targetsOf(number) {
      const values = valuesOf(number);
      return values === undefined ? undefined : { [field.name]: Float32Array.from(values) };
    },
    shownOf: ({ [field.name]: values = new Float32Array(0) }) =>
      names.flatMap((_, label) => (values[label] === 1 ? [label] : [])),
  };
};
