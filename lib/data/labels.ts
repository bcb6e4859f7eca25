import { LockstepError } from "#lib/core/errors/index";

/** Named in an error that lists labels. */
const maxListedLabels = 20;
const wholeNumber = /^(0|[1-9]\d*)$/;

/** The classes of a data set, and where each label that was read stands among them. */
export interface Classes {
  /** By number: `id2label` of a config.json. */
  readonly names: readonly string[];
  /** The class of a label's number; -1 where training has none of it. */
  readonly classOf: Int32Array;
}

/** Labels as they were read, numbered in the order of their first appearance. */
export class LabelTable {
  readonly #numbers = new Map<string, number>();
  readonly #labels: {
    readonly text: string;
    readonly isNumber: boolean;
    readonly place: string;
  }[] = [];

  /** @param place where the label stands, for messages */
  numberOf(label: string | number, place: string): number {
    // A table of text holds numbers as text.
    const text = String(label);
    let number = this.#numbers.get(text);
    if (number === undefined) {
      number = this.#labels.length;
      this.#numbers.set(text, number);
      this.#labels.push({ text, isNumber: typeof label === "number", place });
    }
    return number;
  }

  /**
   * The classes that training has. Names are numbered in their sorted order, as the examples of
   * transformers number them; labels that are whole numbers are the classes' numbers.
   *
   * @param trained numbers of the labels of the training side
   * @param known classes that the model has already: labels that are all among them keep its numbers
   * @throws E_DATA_ROW_FORMAT
   */
  classesOf(trained: Iterable<number>, known: readonly string[] = []): Classes {
    const found = [...new Set(trained)].map((number) => this.#labels[number] ?? nothing);
    const names = found.every(({ text }) => known.includes(text) || isNumberBelow(text, known))
      ? known
      : namesOf(found);
    const indexOf = new Map(names.map((name, index) => [name, index]));
    const isNumberOfKnown = (text: string): boolean =>
      names === known && isNumberBelow(text, known);
    const classOf = this.#labels.map(
      ({ text }) =>
        indexOf.get(text) ??
        (isNumberOfKnown(text) ? Number(text) : indexOf.get(`LABEL_${text}`)) ??
        -1,
    );
    return { names, classOf: Int32Array.from(classOf) };
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

const nothing = { text: "", isNumber: false, place: "" };

const isNumberBelow = (text: string, { length }: readonly string[]): boolean =>
  wholeNumber.test(text) && Number(text) < length;

function namesOf(
  found: readonly { readonly text: string; readonly isNumber: boolean; readonly place: string }[],
): string[] {
  const refuse = (place: string, problem: string): never => {
    throw new LockstepError("E_DATA_ROW_FORMAT", { place, format: "classification", problem });
  };
  const [first = nothing] = found;
  if (found.length === 1)
    refuse(first.place, `all rows have the label ${JSON.stringify(first.text)}`);
  if (found.every(({ text }) => wholeNumber.test(text))) {
    const numbers = new Set(found.map(({ text }) => Number(text)));
    const numClasses = 1 + [...numbers].reduce((most, number) => Math.max(most, number), 0);
    if (numbers.size < numClasses) {
      let missing = 0;
      while (numbers.has(missing)) missing++;
      refuse("training", `labels go up to ${numClasses - 1}, and no row has the label ${missing}`);
    }
    return Array.from({ length: numClasses }, (_, i) => `LABEL_${i}`);
  }
  const number = found.find(({ isNumber }) => isNumber);
  if (number !== undefined) {
    refuse(number.place, `the label ${number.text} is neither a name nor a class's number`);
  }
  return found.map(({ text }) => text).sort((a, b) => (a < b ? -1 : 1));
}
