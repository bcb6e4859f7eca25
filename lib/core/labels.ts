import type { BatchField, FieldArray } from "./batch.js";
import type { LockstepError } from "./errors/index.js";

/** A label as it stands in a row, read. */
export type Label = string | number | boolean | readonly (string | number | boolean)[];

/** How an objective reads, names and numbers the labels of rows; data knows no kind of label. */
export interface LabelReader {
  /**
   * @param value of the row's field, which has one; of text without the blanks around it
   * @returns a problem to be told behind the field's name: "is neither text nor a number"
   */
  read(value: unknown): { readonly label: Label } | { readonly problem: string };
  /**
   * Whether a data set is for it whose first label is this one, where neither a key nor the model says what
   * is learnt; absent: whatever `read` takes.
   */
  suits?(first: unknown): boolean;
  /** A table for one data set. */
  table(): LabelTable;
}

/** Labels as they were read, numbered in the order of their first appearance. */
export interface LabelTable {
  /** @param place where the label stands, for messages */
  numberOf(label: Label, place: string): number;
  /**
   * The classes that training has.
   *
   * @param trained numbers of the labels of the training side
   * @param known classes that the model has already: labels that are all among them keep its numbers
   * @throws E_LABELS_INVALID
   */
  classesOf(trained: Iterable<number>, known?: readonly string[]): Classes;
  /** The error for a label that has no targets. */
  unseen(number: number, classes: Classes): LockstepError;
}

/** The classes of a data set, or the outputs that its rows have a number for. */
export interface Classes {
  /** By number: `id2label` of a config.json. */
  readonly names: readonly string[];
  /** True where a row has a number for each of the names, and no class. */
  readonly areNumbers?: boolean;
  /** What a batch carries of labels. */
  readonly fields: readonly BatchField[];
  /** A row's values of these fields, by its label's number; undefined where training has no such class. */
  targetsOf(number: number): Readonly<Record<string, FieldArray>> | undefined;
  /**
   * For who shows a row, of its values of the fields: its class by number, or its classes; where they are
   * numbers, these, all of them.
   */
  shownOf(targets: Readonly<Record<string, FieldArray>>): number | readonly number[];
}
