import { exactWeight, maxWeight } from "#lib/core/loss-weights";
import { shownValue } from "#lib/core/shown-value";
import { plainNumber } from "#lib/data/json-data";
import type { RawExample } from "#lib/data/readers/index";
import type { ExampleReading } from "./recognise.js";
import { RawFields } from "./example.js";

/** A number of a table. */
export const numberText = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

/**
 * How much an example counts in the loss, by its column of weights: a number, or its text in a table.
 *
 * @returns 1 where no column is named
 * @throws E_DATA_ROW_FORMAT
 */
export function exampleWeight({ place, fields }: RawExample, reading: ExampleReading): number {
  const { columns = {}, format } = reading;
  const column = columns.weight;
  if (column === undefined) return 1;
  const raw = new RawFields(format, place, fields);
  const given = plainNumber(raw.get(column));
  const quoted = JSON.stringify(column);
  if (given === undefined) throw raw.wrong(`it has no weight in ${quoted}`);
  const isText = typeof given === "string" && numberText.test(given.trim());
  return checkedWeight(raw, isText ? Number(given) : given, `the weight in ${quoted}`);
}

/**
 * @param what it is the weight of, for messages
 * @throws E_DATA_ROW_FORMAT for what is no weight
 */
export function checkedWeight(raw: RawFields, value: unknown, what: string): number {
  const problem = weightProblem(value);
  if (problem === undefined) return exactWeight(value as number);
  throw raw.wrong(`${what} ${problem}`);
}

/** What is wrong with a weight, undefined where nothing is: a sentence without its subject. */
function weightProblem(value: unknown): string | undefined {
  if (typeof value !== "number" || !(value >= 0 && value <= maxWeight)) {
    const shown = typeof value === "number" ? String(value) : shownValue(value);
    const advice =
      Number(value) > maxWeight ? "; only ratios count: divide all weights by one number" : "";
    return `is ${shown}, not a number from 0 to ${maxWeight}${advice}`;
  }
  if (value > 0 && exactWeight(value) === 0) {
    return `is ${value}, and weights are multiples of 2^-24; only ratios count: multiply all weights by one number`;
  }
  return undefined;
}
