import { spend, spendOn } from "./budget.js";

/**
 * What a template computes with, in Python's types: an int is a bigint, a float a number, a dict a Map;
 * None is null and a list an array.
 */
export type Value =
  | null
  | boolean
  | bigint
  | number
  | string
  | Value[]
  | Tuple
  | Dict
  | Undefined
  | Namespace
  | Callable;

export type Dict = Map<Value, Value>;

export class Tuple {
  readonly items: readonly Value[];

  constructor(items: readonly Value[]) {
    this.items = items;
  }
}

/** A name or attribute that is not there: empty where it is printed, an error where it is used. */
export class Undefined {
  /** What is missing, for messages: "'content' is undefined". */
  readonly problem: string;

  constructor(problem: string) {
    this.problem = problem;
  }
}

/** Variables that loops may set: `namespace()`. Also what `loop` is, which nobody may set. */
export class Namespace {
  readonly attributes: Map<string, Value>;
  readonly isWritable: boolean;

  constructor(attributes: Map<string, Value>, isWritable = true) {
    this.attributes = attributes;
    this.isWritable = isWritable;
  }
}

export type Keywords = ReadonlyMap<string, Value>;
/** Functions, methods and macros. */
export class Callable {
  readonly call: (args: readonly Value[], keywords: Keywords) => Value;

  constructor(call: (args: readonly Value[], keywords: Keywords) => Value) {
    this.call = call;
  }
}

/** What is wrong while a template renders: its own `raise_exception`, or what Python would raise. */
class TemplateError extends Error {}

/** @throws TemplateError */
export function fail(problem: string): never {
  throw new TemplateError(problem);
}

/** A value, or another where there is none; None is a value. */
export const orElse = (value: Value | undefined, other: Value): Value =>
  value === undefined ? other : value;

export const isDict = (value: Value): value is Dict => value instanceof Map;

/** Python's name of a value's type. */
export function typeName(value: Value): string {
  if (value === null) return "NoneType";
  switch (typeof value) {
    case "boolean":
      return "bool";
    case "bigint":
      return "int";
    case "number":
      return "float";
    case "string":
      return "str";
    default:
  }
  if (Array.isArray(value)) return "list";
  if (value instanceof Tuple) return "tuple";
  if (isDict(value)) return "dict";
  if (value instanceof Undefined) return "Undefined";
  return value instanceof Namespace ? "Namespace" : "function";
}

export function isTrue(value: Value): boolean {
  if (Array.isArray(value)) return value.length > 0;
  if (value instanceof Tuple) return value.items.length > 0;
  if (isDict(value)) return value.size > 0;
  if (value instanceof Undefined) return false;
  return Boolean(value);
}

/** A number as Python's arithmetic sees it (True is 1), undefined for anything else. */
export function numberOf(value: Value): bigint | number | undefined {
  if (typeof value === "boolean") return value ? 1n : 0n;
  return typeof value === "bigint" || typeof value === "number" ? value : undefined;
}

/** 1 equals 1.0, also beyond what a float holds exactly. */
function sameNumber(a: bigint | number, b: bigint | number): boolean {
  if (typeof a === "bigint") return typeof b === "bigint" ? a === b : sameNumber(b, a);
  if (typeof b === "number") return a === b;
  return Number.isInteger(a) && BigInt(a) === b;
}

export function equals(a: Value, b: Value): boolean {
  spend(1);
  const [x, y] = [numberOf(a), numberOf(b)];
  if (x !== undefined && y !== undefined) return sameNumber(x, y);
  const [left, right] = [sequenceOf(a), sequenceOf(b)];
  if (left !== undefined && right !== undefined) {
    return (
      Array.isArray(a) === Array.isArray(b) &&
      left.length === right.length &&
      left.every((item, i) => equals(item, right[i] ?? null))
    );
  }
  if (isDict(a) && isDict(b)) {
    return (
      a.size === b.size &&
      [...a].every(([key, value]) => {
        const other = b.get(key);
        return other !== undefined && equals(value, other);
      })
    );
  }
  if (a instanceof Undefined && b instanceof Undefined) return true;
  return a === b;
}

const sequenceOf = (value: Value): readonly Value[] | undefined =>
  Array.isArray(value) ? value : value instanceof Tuple ? value.items : undefined;

/** What a loop goes over. @throws TemplateError */
export function iterate(value: Value): readonly Value[] {
  const items = sequenceOf(value);
  if (items !== undefined) return items;
  if (typeof value === "string") return Array.from(value);
  if (isDict(value)) return [...value.keys()];
  if (value instanceof Undefined) return [];
  return fail(`TypeError: '${typeName(value)}' object is not iterable`);
}

/** Characters as Python counts them. @throws TemplateError */
export function lengthOf(value: Value): number {
  if (typeof value === "string") return characters(value).length;
  if (Array.isArray(value)) return value.length;
  if (value instanceof Tuple) return value.items.length;
  if (isDict(value)) return value.size;
  if (value instanceof Undefined) return 0;
  return fail(`TypeError: object of type '${typeName(value)}' has no len()`);
}

/** Characters of a text, a string itself where each is one UTF-16 unit. */
export function characters(text: string): string | string[] {
  spendOn(text);
  return /[\ud800-\udbff]/.test(text) ? Array.from(text) : text;
}

/** Python's order, by code points. @throws TemplateError where the types have none */
export function compare(a: Value, b: Value): number {
  const [x, y] = [numberOf(a), numberOf(b)];
  if (x !== undefined && y !== undefined) return x < y ? -1 : x > y ? 1 : 0;
  if (typeof a === "string" && typeof b === "string") return compareText(a, b);
  const [left, right] = [sequenceOf(a), sequenceOf(b)];
  if (left !== undefined && right !== undefined && Array.isArray(a) === Array.isArray(b)) {
    for (let i = 0; i < Math.min(left.length, right.length); i++) {
      const [l = null, r = null] = [left[i], right[i]];
      if (!equals(l, r)) return compare(l, r);
    }
    return left.length - right.length;
  }
  for (const value of [a, b]) if (value instanceof Undefined) fail(value.problem);
  return fail(`TypeError: '${typeName(a)}' and '${typeName(b)}' have no order`);
}

export function compareText(a: string, b: string): number {
  if (a === b) return 0;
  const [left, right] = [Array.from(a), Array.from(b)];
  for (let i = 0; i < Math.min(left.length, right.length); i++) {
    const difference = (left[i]?.codePointAt(0) ?? 0) - (right[i]?.codePointAt(0) ?? 0);
    if (difference !== 0) return difference;
  }
  return left.length - right.length;
}
