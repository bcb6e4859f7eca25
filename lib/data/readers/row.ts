import type { BadRows } from "#lib/data/bad-rows";

/** A row as its file holds it: named values, not looked at yet. */
export interface RawRow {
  /** file:line, or file:row where a row has no line; for messages. */
  readonly place: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

export type RowReader = (file: string, badRows: BadRows) => AsyncGenerator<RawRow>;

/** A row is one document; this holds a long book and bounds the memory of a file without line ends. */
export const maxRowBytes = 64 * 2 ** 20;
/** Wide tables have hundreds of columns; each costs memory in every row. */
export const maxColumns = 10_000;

export function kindOf(value: unknown): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "an array" : `of type ${typeof value}`;
}
