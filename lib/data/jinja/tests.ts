import { binaryOperation } from "./operators.js";
import { textOf } from "./text.js";
import {
  Callable,
  equals,
  fail,
  isDict,
  isTrue,
  numberOf,
  Tuple,
  Undefined,
  type Value,
} from "./values.js";

/** What stands behind `is`, or is named to `selectattr`. */
type Test = (value: Value, args: readonly Value[]) => boolean;

const binary =
  (operator: string): Test =>
  (value, [other = null]) =>
    isTrue(binaryOperation(operator, value, other));
const hasRemainder =
  (by: bigint, remainder: boolean): Test =>
  (value) =>
    isTrue(binaryOperation("%", value, by)) === remainder;
const isSequence = (value: Value): boolean =>
  typeof value === "string" ||
  Array.isArray(value) ||
  value instanceof Tuple ||
  isDict(value) ||
  value instanceof Undefined;

const tests: Readonly<Record<string, Test>> = {
  boolean: (value) => typeof value === "boolean",
  callable: (value) => value instanceof Callable,
  defined: (value) => !(value instanceof Undefined),
  divisibleby: (value, [by = 1n]) => !isTrue(binaryOperation("%", value, by)),
  even: hasRemainder(2n, false),
  false: (value) => value === false,
  float: (value) => typeof value === "number",
  in: binary("in"),
  integer: (value) => typeof value === "bigint",
  iterable: isSequence,
  lower: (value) => isCased(textOf(value), (text) => text.toLowerCase()),
  mapping: isDict,
  none: (value) => value === null,
  number: (value) => numberOf(value) !== undefined,
  odd: hasRemainder(2n, true),
  sameas: (value, [other = null]) => value === other,
  sequence: isSequence,
  string: (value) => typeof value === "string",
  true: (value) => value === true,
  undefined: (value) => value instanceof Undefined,
  upper: (value) => isCased(textOf(value), (text) => text.toUpperCase()),
};
const comparisons: Readonly<Record<string, string>> = {
  ...{ eq: "==", equalto: "==", "==": "==", ne: "!=", "!=": "!=" },
  ...{ lt: "<", lessthan: "<", "<": "<", le: "<=", "<=": "<=" },
  ...{ gt: ">", greaterthan: ">", ">": ">", ge: ">=", ">=": ">=" },
};

const isCased = (text: string, change: (text: string) => string): boolean =>
  text === change(text) && text.toLowerCase() !== text.toUpperCase();

/** @throws TemplateError where there is none of that name */
export function testNamed(name: string): Test {
  const operator = Object.hasOwn(comparisons, name) ? comparisons[name] : undefined;
  if (operator === "==") return (value, [other = null]) => equals(value, other);
  if (operator !== undefined) return binary(operator);
  const test = Object.hasOwn(tests, name) ? tests[name] : undefined;
  return test ?? fail(`TemplateAssertionError: No test named '${name}'`);
}
