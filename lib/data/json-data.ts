import { LockstepError } from "#lib/core/errors/index";
import { isRecord } from "./files.js";
import type { Value } from "./jinja/values.js";

/** A float that JavaScript would not tell from an integer: 20.0, 1e5, -0.0. */
export class FloatNumber {
  readonly value: number;

  constructor(value: number) {
    this.value = value;
  }

  toJSON(): number {
    return this.value;
  }
}

/**
 * JSON of which nothing is lost: objects are Maps, which keep the order of keys such as "10"; integers
 * beyond 2^53 are bigints; a number that is whole and was written as a float is a {@link FloatNumber}.
 */
export type JsonData =
  | null
  | boolean
  | number
  | bigint
  | string
  | FloatNumber
  | readonly JsonData[]
  | ReadonlyMap<string, JsonData>;

/** Python's own parser ends at about 1000. */
const maxJsonDepth = 500;

/** Lists, objects and what is in them: each takes some hundred bytes here, and a row of data has thousands. */
const maxJsonValues = 2_000_000;
const tooManyValues = `it has more than ${maxJsonValues} values`;

/** A token that is not a text, and the quote that begins one. */
const token = /[ \t\n\r]*(?:(")|(-?\d+)((?:\.\d+)?(?:[eE][-+]?\d+)?)|(true|false|null|[[\]{},:]))/y;

/** Parses text that `JSON.parse` has accepted. @throws RangeError where it is nested too deep, or has too many values */
export function parseJsonData(text: string): JsonData {
  let position = 0;
  let numValues = 0;
  const next = (): RegExpExecArray => {
    token.lastIndex = position;
    const found = token.exec(text);
    if (found === null) throw new Error("not JSON");
    position = token.lastIndex;
    return found;
  };
  /** The text whose quote was just found. A pattern for all of it would fail on some MiB. */
  const string = (): string => {
    const start = position - 1;
    for (;;) {
      const end = text.indexOf('"', position);
      if (end < 0) throw new Error("not JSON");
      position = end + 1;
      let numBackslashes = 0;
      while (text[end - 1 - numBackslashes] === "\\") numBackslashes++;
      if (numBackslashes % 2 === 0) return JSON.parse(text.slice(start, end + 1)) as string;
    }
  };
  const value = (match: RegExpExecArray, depth: number): JsonData => {
    if (depth > maxJsonDepth) throw new RangeError(`nested more than ${maxJsonDepth} levels deep`);
    if (++numValues > maxJsonValues) throw new RangeError(tooManyValues);
    const [, quote, integer, fraction, word] = match;
    if (quote !== undefined) return string();
    if (integer !== undefined) return numberData(integer, fraction ?? "");
    if (word === "[") {
      const items: JsonData[] = [];
      for (let each = next(); each[4] !== "]"; each = next()) {
        if (each[4] !== ",") items.push(value(each, depth + 1));
      }
      return items;
    }
    if (word === "{") {
      const entries = new Map<string, JsonData>();
      for (let each = next(); each[4] !== "}"; each = next()) {
        if (each[4] === ",") continue;
        const name = string();
        next();
        entries.set(name, value(next(), depth + 1));
      }
      return entries;
    }
    return word === "null" ? null : word === "true";
  };
  return value(next(), 0);
}

function numberData(integer: string, fraction: string): JsonData {
  const number = Number(integer + fraction);
  if (fraction !== "") return Number.isInteger(number) ? new FloatNumber(number) : number;
  return Number.isSafeInteger(number) && !Object.is(number, -0) ? number : BigInt(integer);
}

/** Whether JavaScript's own objects and numbers may lose something of JSON text. */
export function losesInJavaScript(text: string): boolean {
  return /\d[eE][-+]?\d|\d\.0+(?!\d)|\d{16}|"\d+"\s*:/.test(text);
}

/**
 * What a reader gave of an example, with objects of JavaScript as Maps.
 *
 * @param dropsNull whether keys without a value are left out: tables pad the rows of a column to the same
 *   keys, so an example does not say whether it had them
 * @throws RangeError where it is nested too deep
 */
export function jsonDataOf(value: unknown, { dropsNull = false } = {}, depth = 0): JsonData {
  if (depth > maxJsonDepth) throw new RangeError(`nested more than ${maxJsonDepth} levels deep`);
  const inner = (each: unknown): JsonData => jsonDataOf(each, { dropsNull }, depth + 1);
  if (value === undefined || value === null) return null;
  if (Array.isArray(value)) return (value as unknown[]).map(inner);
  if (typeof value !== "object" || value instanceof FloatNumber) return value as JsonData;
  const isPlain = [Object.prototype, null].includes(Object.getPrototypeOf(value) as object | null);
  // transformers shows a template no other objects either.
  if (!(value instanceof Map) && !isPlain) {
    return value instanceof Date
      ? "<datetime>"
      : value instanceof Uint8Array
        ? "<bytes>"
        : "<object>";
  }
  const entries =
    value instanceof Map ? [...(value as Map<string, unknown>)] : Object.entries(value);
  const kept = dropsNull
    ? entries.filter(([, each]) => each !== null && each !== undefined)
    : entries;
  return new Map(kept.map(([name, each]) => [name, inner(each)]));
}

/** As a template computes with it. */
export function templateValue(data: unknown): Value {
  if (data === undefined || data === null) return null;
  if (data instanceof FloatNumber) return data.value;
  if (typeof data === "number") return Number.isInteger(data) ? BigInt(data) : data;
  if (typeof data !== "object") return data as Value;
  if (Array.isArray(data)) return (data as unknown[]).map(templateValue);
  const entries = data instanceof Map ? [...(data as Map<string, unknown>)] : Object.entries(data);
  return new Map(entries.map(([name, each]) => [name, templateValue(each)]));
}

export const isJsonObject = (data: unknown): data is ReadonlyMap<string, JsonData> =>
  data instanceof Map;

/** A number that is a field of an example itself, as JavaScript has it. */
export function plainNumber(value: unknown): unknown {
  if (typeof value === "bigint") return Number(value);
  return value instanceof FloatNumber ? value.value : value;
}

/** @throws E_DATA_ROW_FORMAT for what is nested too deep */
export function atPlace<T>(place: string, action: () => T): T {
  try {
    return action();
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    const problem = cause.message === tooManyValues ? tooManyValues : "it is nested too deep";
    const facts = { place, format: "JSON", problem };
    throw new LockstepError("E_DATA_ROW_FORMAT", facts, { cause });
  }
}

/** The fields of an object, in whichever of its two forms a reader gives it. */
export function fieldsOf(value: unknown): Readonly<Record<string, unknown>> | undefined {
  if (isJsonObject(value)) return Object.fromEntries(value);
  return isRecord(value) ? value : undefined;
}
