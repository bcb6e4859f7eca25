import { reprOf, textOf } from "./text.js";
import {
  Callable,
  fail,
  isDict,
  iterate,
  Namespace,
  typeName,
  Undefined,
  type Value,
} from "./values.js";

/** Functions that every template has. */
export const globals: ReadonlyMap<string, Value> = new Map<string, Value>([
  [
    "raise_exception",
    new Callable(([problem = "the template refuses this"]) => fail(textOf(problem))),
  ],
  ["range", new Callable((args) => range(args))],
  ["dict", new Callable(([source], keywords) => new Map([...pairs(source), ...keywords]))],
  [
    "namespace",
    new Callable(([source], keywords) => {
      const attributes = [...pairs(source), ...keywords];
      return new Namespace(new Map(attributes.map(([key, value]) => [textOf(key), value])));
    }),
  ],
]);

function pairs(source: Value | undefined): [Value, Value][] {
  if (source === undefined) return [];
  if (isDict(source)) return [...source];
  return iterate(source).map((pair) => {
    const [key, value, ...more] = iterate(pair);
    if (key !== undefined && value !== undefined && more.length === 0) return [key, value];
    return fail(`ValueError: ${reprOf(pair)} is no pair of a key and a value`);
  });
}

/** The sandbox's limit of a range. */
const maxRange = 100_000;

function range(args: readonly Value[]): Value {
  const [first, second, third] = args.map((value) => {
    if (typeof value === "bigint") return Number(value);
    if (typeof value === "boolean") return value ? 1 : 0;
    if (value instanceof Undefined) fail(value.problem);
    return fail(`TypeError: '${typeName(value)}' object cannot be interpreted as an integer`);
  });
  const [start, stop, step] =
    second === undefined ? [0, first ?? 0, 1] : [first ?? 0, second, third ?? 1];
  if (step === 0) fail("ValueError: range() arg 3 must not be zero");
  const count = Math.max(0, Math.ceil((stop - start) / step));
  if (count > maxRange)
    fail(`OverflowError: Range too big. The sandbox blocks ranges larger than ${maxRange}`);
  return Array.from({ length: count }, (_, i) => BigInt(start + i * step));
}
