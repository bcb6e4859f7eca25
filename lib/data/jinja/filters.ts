import { Arguments } from "./arguments.js";
import { checkList, checkText, joined, repeated, spend, spendOn } from "./budget.js";
import { attributeOf, itemOf } from "./attributes.js";
import { binaryOperation } from "./operators.js";
import { capitalize, caseFilter, replace, strip } from "./string-methods.js";
import { jsonText, textOf } from "./text.js";
import { testNamed } from "./tests.js";
import {
  compare,
  equals,
  fail,
  isDict,
  isTrue,
  iterate,
  type Keywords,
  lengthOf,
  numberOf,
  orElse,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from "./values.js";

type Filter = (value: Value, args: readonly Value[], keywords: Keywords) => Value;

/** A filter whose parameters have names. */
const named =
  (
    name: string,
    parameters: readonly string[],
    run: (value: Value, args: Arguments) => Value,
  ): Filter =>
  (value, args, keywords) =>
    run(value, new Arguments(name, parameters, args, keywords));
const plain =
  (run: (value: Value) => Value): Filter =>
  (value) =>
    run(value);

/** The attribute of a filter's argument: a path of names and numbers with dots between. */
function attributeGetter(path: Value | undefined): (item: Value) => Value {
  if (path === undefined || path === null) return (item) => item;
  const parts: Value[] =
    typeof path === "string"
      ? path.split(".").map((part) => (/^\d+$/.test(part) ? BigInt(part) : part))
      : [path];
  return (item) => parts.reduce<Value>((value, part) => itemOf(value, part), item);
}

const withoutCase = (value: Value): Value =>
  typeof value === "string" ? value.toLowerCase() : value;

/** An item is compared with some others. */
const operationsOfSorting = 4;

function sorted(items: readonly Value[], keyOf: (item: Value) => Value, args: Arguments): Value[] {
  const fold = isTrue(args.get("case_sensitive") ?? false) ? (key: Value) => key : withoutCase;
  const sign = isTrue(args.get("reverse") ?? false) ? -1 : 1;
  spend(operationsOfSorting * items.length);
  const keyed = items.map((item) => ({ item, key: fold(keyOf(item)) }));
  return keyed.sort((a, b) => sign * compare(a.key, b.key)).map(({ item }) => item);
}

/** Items that pass a test, or those that do not. */
const selecting =
  (hasAttribute: boolean, keeps: boolean): Filter =>
  (value, args) => {
    const get = attributeGetter(hasAttribute ? args[0] : undefined);
    const [name, ...testArgs] = hasAttribute ? args.slice(1) : args;
    const passes =
      name === undefined ? isTrue : (item: Value) => testNamed(textOf(name))(item, testArgs);
    return iterate(value).filter((item) => passes(get(item)) === keeps);
  };

const extreme = (sign: number): Filter =>
  named("max", ["case_sensitive", "attribute"], (value, args) => {
    const [best, ...rest] = sorted(iterate(value), attributeGetter(args.get("attribute")), args);
    if (best === undefined) return new Undefined("No aggregated item, sequence was empty.");
    return sign < 0 ? best : (rest.at(-1) ?? best);
  });

function indented(value: Value, args: Arguments): Value {
  const width = args.get("width") ?? 4n;
  const indention =
    typeof width === "string" ? width : repeated(" ", Number(numberOf(width) ?? 4n));
  const lines = textOf(value).split(/\r\n|[\n\r]/);
  const isBlankToo = isTrue(args.get("blank") ?? false);
  const isIndented = lines.map((line, i) => i > 0 && (line !== "" || isBlankToo));
  const indentions = isIndented.filter(Boolean).length;
  checkText(textOf(value).length + indentions * indention.length);
  const text = lines.map((line, i) => (isIndented[i] ? indention + line : line)).join("\n");
  return isTrue(args.get("first") ?? false) ? indention + text : text;
}

function toInteger(value: Value, args: Arguments): Value {
  const other = orElse(args.get("default"), 0n);
  if (typeof value === "string") {
    const text = strip(value, undefined).replace(/(?<=\d)_(?=\d)/g, "");
    // Python gives up a longer one too.
    if (text.length > 4_300) return other;
    if (/^[-+]?\d+$/.test(text)) return BigInt(text.replace("+", ""));
    const float = parseFloatText(text);
    return float !== undefined && Number.isFinite(float) ? BigInt(Math.trunc(float)) : other;
  }
  const number = numberOf(value);
  if (typeof number === "bigint") return number;
  return number !== undefined && Number.isFinite(number) ? BigInt(Math.trunc(number)) : other;
}

function parseFloatText(text: string): number | undefined {
  const isNumber = /^[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?$/.test(text);
  return isNumber ? Number(text) : undefined;
}

function toFloat(value: Value, args: Arguments): Value {
  const other = orElse(args.get("default"), 0);
  if (typeof value === "string") return parseFloatText(strip(value, undefined)) ?? other;
  const number = numberOf(value);
  return number === undefined ? other : Number(number);
}

function rounded(value: Value, args: Arguments): Value {
  const number = numberOf(value);
  if (number === undefined) return fail(`TypeError: ${typeName(value)} cannot be rounded`);
  const precision = args.integer("precision") ?? 0;
  const method = args.text("method") ?? "common";
  if (method !== "common") {
    const scale = 10 ** precision;
    return (method === "ceil" ? Math.ceil : Math.floor)(Number(number) * scale) / scale;
  }
  if (precision < 0 || precision > 15) return fail("round() takes a precision of 0 to 15 here");
  if (typeof number === "bigint") return number;
  const half = exactHalf(number, precision);
  if (half === undefined) return Number(number.toFixed(precision));
  // Python rounds a half to the even side.
  const even = half % 2n === 0n ? half : half + 1n;
  return Number(`${even}e-${precision}`);
}

/** The number below, in units of the last digit that is kept, where a value is exactly between two. */
function exactHalf(value: number, precision: number): bigint | undefined {
  if (!Number.isFinite(value)) return undefined;
  let [scaled, unit] = [value, 1n];
  for (; !Number.isInteger(scaled); scaled *= 2) unit *= 2n;
  const twice = BigInt(scaled) * 10n ** BigInt(precision) * 2n;
  if (twice % unit !== 0n || (twice / unit) % 2n === 0n) return undefined;
  const halves = twice / unit;
  return (halves - 1n) / 2n;
}

function json(value: Value, args: Arguments): Value {
  const indent = args.get("indent") ?? null;
  const separators = args.get("separators") ?? null;
  const [item, key, ...more] = separators === null ? [", ", ": "] : iterate(separators);
  if (typeof item !== "string" || typeof key !== "string" || more.length > 0) {
    return fail("TypeError: tojson(): 'separators' is not a pair of texts");
  }
  const width = numberOf(indent);
  return jsonText(value, {
    ensureAscii: isTrue(args.get("ensure_ascii") ?? false),
    indent:
      typeof indent === "string"
        ? indent
        : width === undefined
          ? null
          : repeated(" ", Number(width)),
    separators: separators === null ? null : [item, key],
    sortKeys: isTrue(args.get("sort_keys") ?? false),
  });
}

function mapped(value: Value, args: readonly Value[], keywords: Keywords): Value {
  const items = iterate(value);
  const attribute = keywords.get("attribute");
  if (attribute !== undefined) {
    const other = keywords.get("default");
    return items.map(attributeGetter(attribute)).map((item) => {
      return item instanceof Undefined && other !== undefined ? other : item;
    });
  }
  const [name, ...rest] = args;
  if (name === undefined) return fail("FilterArgumentError: map requires a filter argument");
  const filter = filterNamed(textOf(name));
  return items.map((item) => filter(item, rest, keywords));
}

function batches(value: Value, args: Arguments): Value {
  const size = Math.max(1, args.integer("linecount") ?? 1);
  const items = iterate(value);
  const fill = args.get("fill_with") ?? null;
  const rows: Value[][] = [];
  for (let i = 0; i < items.length; i += size) rows.push(items.slice(i, i + size));
  const last = rows.at(-1);
  if (fill !== null) checkList(size);
  while (fill !== null && last !== undefined && last.length < size) last.push(fill);
  return rows;
}

const length = plain((value) => BigInt(lengthOf(value)));
const defaultFilter: Filter = named("default", ["default_value", "boolean"], (value, args) => {
  const isMissing =
    value instanceof Undefined || (isTrue(args.get("boolean") ?? false) && !isTrue(value));
  return isMissing ? orElse(args.get("default_value"), "") : value;
});

const filters: Readonly<Record<string, Filter>> = {
  abs: plain((value) => {
    const number = numberOf(value);
    if (number === undefined)
      return fail(`TypeError: bad operand type for abs(): '${typeName(value)}'`);
    return number < 0 ? -number : number;
  }),
  attr: named("attr", ["name"], (value, args) =>
    isDict(value)
      ? new Undefined("a dict has entries")
      : attributeOf(value, args.requiredText("name")),
  ),
  batch: named("batch", ["linecount", "fill_with"], batches),
  capitalize: plain((value) => capitalize(textOf(value))),
  count: length,
  d: defaultFilter,
  default: defaultFilter,
  dictsort: named("dictsort", ["case_sensitive", "by", "reverse"], (value, args) => {
    if (!isDict(value)) return fail(`TypeError: dictsort() needs a dict, not ${typeName(value)}`);
    const by = args.text("by") === "value" ? 1n : 0n;
    return sorted(
      [...value].map((entry) => new Tuple(entry)),
      (item) => itemOf(item, by),
      args,
    );
  }),
  first: plain((value) => orElse(iterate(value)[0], emptySequence("first"))),
  float: named("float", ["default"], toFloat),
  indent: named("indent", ["width", "first", "blank"], indented),
  int: named("int", ["default", "base"], toInteger),
  items: plain((value) => {
    if (value instanceof Undefined) return [];
    if (!isDict(value)) return fail("TypeError: Can only get item pairs from a mapping.");
    return [...value].map((entry) => new Tuple(entry));
  }),
  join: named("join", ["d", "attribute"], (value, args) =>
    joined(
      iterate(value)
        .map(attributeGetter(args.get("attribute")))
        .map(textOf),
      textOf(args.get("d") ?? ""),
    ),
  ),
  last: plain((value) => orElse(iterate(value).at(-1), emptySequence("last"))),
  length,
  list: plain((value) => [...iterate(value)]),
  lower: caseFilter("lower"),
  map: mapped,
  max: extreme(1),
  min: extreme(-1),
  reject: selecting(false, false),
  rejectattr: selecting(true, false),
  replace: named("replace", ["old", "new", "count"], (value, args) => {
    const [old, by] = [textOf(args.get("old") ?? ""), textOf(args.get("new") ?? "")];
    return replace(textOf(value), old, by, args.integer("count"));
  }),
  reverse: plain((value) =>
    typeof value === "string"
      ? Array.from(value).reverse().join("")
      : [...iterate(value)].reverse(),
  ),
  round: named("round", ["precision", "method"], rounded),
  safe: plain((value) => value),
  select: selecting(false, true),
  selectattr: selecting(true, true),
  sort: named("sort", ["reverse", "case_sensitive", "attribute"], (value, args) =>
    sorted(iterate(value), attributeGetter(args.get("attribute")), args),
  ),
  string: plain(textOf),
  sum: named("sum", ["attribute", "start"], (value, args) =>
    iterate(value)
      .map(attributeGetter(args.get("attribute")))
      .reduce((total, item) => binaryOperation("+", total, item), args.get("start") ?? 0n),
  ),
  title: plain((value) =>
    textOf(value)
      .split(/([-\s({[<]+)/)
      .map(capitalize)
      .join(""),
  ),
  tojson: named("tojson", ["ensure_ascii", "indent", "separators", "sort_keys"], json),
  trim: named("trim", ["chars"], (value, args) => strip(textOf(value), args.text("chars"))),
  unique: named("unique", ["case_sensitive", "attribute"], (value, args) => {
    const get = attributeGetter(args.get("attribute"));
    const fold = isTrue(args.get("case_sensitive") ?? false) ? (key: Value) => key : withoutCase;
    const seen: Value[] = [];
    return iterate(value).filter((item) => {
      const key = fold(get(item));
      spendOn(seen);
      if (seen.some((each) => equals(each, key))) return false;
      seen.push(key);
      return true;
    });
  }),
  upper: caseFilter("upper"),
  wordcount: plain((value) => BigInt(textOf(value).match(/[\p{L}\p{N}_]+/gu)?.length ?? 0)),
};

/** Filters that go through nothing. */
const constantTime: ReadonlySet<string> = new Set(["count", "d", "default", "length", "safe"]);

const emptySequence = (which: string): Undefined =>
  new Undefined(`No ${which} item, sequence was empty.`);

/** @throws TemplateError where there is none of that name */
export function filterNamed(name: string): Filter {
  const filter = Object.hasOwn(filters, name) ? filters[name] : undefined;
  if (filter === undefined) return fail(`TemplateAssertionError: No filter named '${name}'`);
  if (constantTime.has(name)) return filter;
  return (value, args, keywords) => {
    spendOn(value);
    const result = filter(value, args, keywords);
    spendOn(result);
    return result;
  };
}
