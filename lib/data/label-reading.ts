import type { LabelReader, LabelTable } from "#lib/core/labels";

/** Chooses who reads the labels of a data set, by the first of them. */
export type LabelReaderOf = (first: unknown) => LabelReader;

/** The labels of one data set: one reader for all of them. */
export class LabelReading {
  readonly #readerOf: LabelReaderOf;
  #reader: LabelReader | undefined;
  #table: LabelTable | undefined;

  constructor(readerOf: LabelReaderOf) {
    this.#readerOf = readerOf;
  }

  readonly read: LabelReader["read"] = (value) => {
    this.#reader ??= this.#readerOf(value);
    return this.#reader.read(value);
  };

  /** @throws RangeError before a label was read */
  get table(): LabelTable {
    this.#table ??= this.#reader?.table();
    if (this.#table === undefined) throw new RangeError("No label was read");
    return this.#table;
  }
}
