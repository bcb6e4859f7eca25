import type { BadExamples } from "#lib/data/bad-examples";

/** An example as its file holds it, which its user calls a row: named values, not looked at yet. */
export interface RawExample {
  /** file:line, or file:row where a row has no line; for messages. */
  readonly place: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

export type ExampleReader = (file: string, badExamples: BadExamples) => AsyncGenerator<RawExample>;

/** One example is one document: this holds a long book and bounds the memory of a file without line ends. */
export const maxExampleBytes = 64 * 2 ** 20;
/** Wide tables have hundreds of columns; each costs memory in every example. */
export const maxColumns = 10_000;

export function kindOf(value: unknown): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "an array" : `of type ${typeof value}`;
}
