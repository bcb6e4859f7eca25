import { inspect } from "node:util";

/** A value in a message, cut where it is long; what no file can hold is shown as a program writes it. */
export function show(value: unknown): string {
  if (value === undefined) return "nothing";
  const text = hasNoJson(value)
    ? inspect(value, { depth: 0, breakLength: Infinity })
    : JSON.stringify(value);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

/** Whether two values of a configuration are the same; YAML's 0.0 is 0. */
export function same(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

const hasNoJson = (value: unknown): boolean =>
  ["bigint", "function", "symbol"].includes(typeof value) ||
  (typeof value === "number" && !Number.isFinite(value)) ||
  (value instanceof Object && !Array.isArray(value) && !isPlain(value));

const isPlain = (value: object): boolean => {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
};
