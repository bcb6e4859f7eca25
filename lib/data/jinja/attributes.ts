import { Arguments } from "./arguments.js";
import { spendOn } from "./budget.js";
import { stringMethod } from "./string-methods.js";
import { reprOf, textOf } from "./text.js";
import {
  Callable,
  characters,
  type Dict,
  equals,
  fail,
  isDict,
  iterate,
  lengthOf,
  Namespace,
  numberOf,
  orElse,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from "./values.js";

const dictMethods: Readonly<Record<string, (dict: Dict, args: readonly Value[]) => Value>> = {
  copy: (dict) => new Map(dict),
  get: (dict, args) => {
    const [key = null, other = null] = args;
    return orElse(dict.get(key), other);
  },
  items: (dict) => [...dict].map((entry) => new Tuple(entry)),
  keys: (dict) => [...dict.keys()],
  values: (dict) => [...dict.values()],
};
const listMethods: Readonly<Record<string, (items: readonly Value[], item: Value) => Value>> = {
  copy: (items) => [...items],
  count: (items, item) => BigInt(items.filter((each) => equals(each, item)).length),
  index: (items, item) => {
    const found = items.findIndex((each) => equals(each, item));
    return found < 0 ? fail("ValueError: the value is not in the list") : BigInt(found);
  },
};
/** What the sandbox of transformers refuses, since it changes a value. */
const mutating = [
  ...["append", "clear", "extend", "insert", "pop", "popitem", "remove", "reverse", "setdefault"],
  ...["sort", "update"],
];

/** A method or attribute that Python's type has. @throws TemplateError for what changes a value */
function ownAttribute(value: Value, name: string): Value | undefined {
  if (typeof value === "string") return stringMethod(value, name);
  const isList = Array.isArray(value);
  if ((isList || isDict(value)) && mutating.includes(name)) {
    return fail(
      `SecurityError: access to attribute '${name}' of '${typeName(value)}' object is unsafe`,
    );
  }
  if (isDict(value)) {
    const run = Object.hasOwn(dictMethods, name) ? dictMethods[name] : undefined;
    if (run === undefined) return undefined;
    return new Callable((args, keywords) => {
      new Arguments(name, name === "get" ? ["key", "default"] : [], args, keywords);
      return run(value, args);
    });
  }
  if (isList || value instanceof Tuple) {
    const run = Object.hasOwn(listMethods, name) ? listMethods[name] : undefined;
    const items = isList ? value : value.items;
    return (
      run &&
      new Callable(([item = null]) => {
        spendOn(items);
        return run(items, item);
      })
    );
  }
  return value instanceof Namespace ? value.attributes.get(name) : undefined;
}

/** `value.name`: an attribute of the type before an entry. @throws TemplateError */
export function attributeOf(value: Value, name: string): Value {
  if (value instanceof Undefined) fail(value.problem);
  const own = ownAttribute(value, name);
  if (own !== undefined) return own;
  return orElse(isDict(value) ? value.get(name) : undefined, missing(value, name));
}

/** `value[key]`: an entry before an attribute. @throws TemplateError */
export function itemOf(value: Value, key: Value): Value {
  if (value instanceof Undefined) fail(value.problem);
  if (isDict(value)) {
    const found = value.get(key);
    if (found !== undefined) return found;
  }
  const index = numberOf(key);
  if (typeof index === "bigint" && !isDict(value)) {
    const at = Number(index);
    if (Array.isArray(value)) return orElse(value.at(at), missing(value, key));
    if (value instanceof Tuple) return orElse(value.items.at(at), missing(value, key));
    if (typeof value === "string") return orElse(characters(value).at(at), missing(value, key));
  }
  const own = typeof key === "string" ? ownAttribute(value, key) : undefined;
  return orElse(own, missing(value, key));
}

const missing = (value: Value, key: Value): Undefined =>
  new Undefined(
    typeof key === "string"
      ? `'${typeName(value)} object' has no attribute '${key}'`
      : `${typeName(value)} object has no element ${reprOf(key)}`,
  );

/** Python's slices. @throws TemplateError */
export function sliceOf(value: Value, bounds: readonly (Value | undefined)[]): Value {
  if (value instanceof Undefined) fail(value.problem);
  const isText = typeof value === "string";
  if (!isText && !Array.isArray(value) && !(value instanceof Tuple)) {
    return fail(`TypeError: '${typeName(value)}' object cannot be cut`);
  }
  const [start, stop, step] = bounds.map((bound) => {
    const given = bound ?? undefined;
    if (given === undefined) return undefined;
    const number = numberOf(given);
    if (typeof number === "bigint") return Number(number);
    if (given instanceof Undefined) fail(given.problem);
    return fail("TypeError: slice indices must be integers or None");
  });
  const items = iterate(value);
  spendOn(items);
  const by = step ?? 1;
  if (by === 0) fail("ValueError: slice step cannot be zero");
  const length = lengthOf(value);
  const [low, high] = by > 0 ? [0, length] : [-1, length - 1];
  const clamp = (index: number): number =>
    Math.min(Math.max(index < 0 ? index + length : index, low), high);
  const from = start === undefined ? (by > 0 ? low : high) : clamp(start);
  const to = stop === undefined ? (by > 0 ? high : low) : clamp(stop);
  const cut: Value[] = [];
  for (let i = from; by > 0 ? i < to : i > to; i += by) cut.push(items[i] ?? null);
  if (isText) return cut.map(textOf).join("");
  return Array.isArray(value) ? cut : new Tuple(cut);
}
