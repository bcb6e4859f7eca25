import { Arguments } from "./arguments.js";
import { checkText, joined, repeated, spendOn } from "./budget.js";
import { textOf } from "./text.js";
import {
  Callable,
  characters,
  fail,
  iterate,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from "./values.js";

// What Python calls whitespace: not U+FEFF, which JavaScript trims, but the separators of ASCII.
const blanks =
  "\\t-\\r\\x1c-\\x1f \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const leadingBlanks = new RegExp(`^[${blanks}]+`);
const blank = new RegExp(`[${blanks}]`);
const blankRun = new RegExp(`[${blanks}]+`);

type Side = "left" | "right" | "both";

/** Python's `strip`, `lstrip` and `rstrip`: of whitespace, or of the characters that are named. */
export function strip(text: string, named: string | undefined, side: Side = "both"): string {
  if (named === undefined) {
    const right = side === "left" ? text : withoutTrailingBlanks(text);
    return side === "right" ? right : right.replace(leadingBlanks, "");
  }
  const set = new Set(Array.from(named));
  const all = Array.from(text);
  let [start, end] = [0, all.length];
  if (side !== "right") while (start < end && set.has(all[start] ?? "")) start++;
  if (side !== "left") while (end > start && set.has(all[end - 1] ?? "")) end--;
  return all.slice(start, end).join("");
}

/** From the end: an expression would try every run of blanks, which takes the square of a long one's length. */
function withoutTrailingBlanks(text: string): string {
  let end = text.length;
  while (end > 0 && blank.test(text[end - 1] ?? "")) end--;
  return text.slice(0, end);
}

/** Python's `split` (or `rsplit`, which counts its cuts from the end). */
function split(
  text: string,
  separator: string | undefined,
  limit: number,
  fromEnd = false,
): string[] {
  if (separator === "") fail("ValueError: empty separator");
  const parts =
    separator === undefined
      ? strip(text, undefined)
          .split(blankRun)
          .filter((part) => part !== "")
      : text.split(separator);
  if (limit < 0 || parts.length <= limit + 1) return parts;
  if (separator !== undefined) {
    return fromEnd
      ? [parts.slice(0, parts.length - limit).join(separator), ...parts.slice(parts.length - limit)]
      : [...parts.slice(0, limit), parts.slice(limit).join(separator)];
  }
  // The rest keeps its own whitespace.
  let rest = strip(text, undefined, fromEnd ? "right" : "left");
  const cut: string[] = [];
  for (let i = 0; i < limit; i++) {
    const part = (fromEnd ? parts[parts.length - 1 - i] : parts[i]) ?? "";
    cut.push(part);
    rest = fromEnd
      ? strip(rest.slice(0, rest.length - part.length), undefined, "right")
      : strip(rest.slice(part.length), undefined, "left");
  }
  return fromEnd ? [rest, ...cut.reverse()] : [...cut, rest];
}

/** Python's `replace`, at most `count` times from the left. */
export function replace(text: string, old: string, by: string, count = -1): string {
  if (by.length > old.length) {
    const most = old === "" ? text.length + 1 : text.length / old.length;
    const times = Math.floor(count < 0 ? most : Math.min(count, most));
    const cuts = old === "" ? times : Math.min(times, text.split(old).length - 1);
    checkText(text.length + cuts * (by.length - old.length));
  }
  if (count < 0) return text.replaceAll(old, () => by);
  const parts = old === "" ? ["", ...Array.from(text), ""] : text.split(old);
  const cuts = Math.min(count, parts.length - 1);
  return [parts.slice(0, cuts + 1).join(by), ...parts.slice(cuts + 1)].join(old);
}

export const capitalize = (text: string): string => {
  const [first = "", ...rest] = Array.from(text);
  return first.toUpperCase() + rest.join("").toLowerCase();
};

/** A letter is a capital where no letter is before it. */
const titleCase = (text: string): string => text.replace(/\p{L}+/gu, (word) => capitalize(word));

const isCase = (text: string, cased: string, other: string): boolean =>
  text === cased && text !== other;
const isAll =
  (pattern: RegExp): Method =>
  (text) =>
    pattern.test(text);

/** An offset in UTF-16 units as Python counts characters; -1 stays. */
const place = (text: string, offset: number): bigint =>
  BigInt(offset < 0 ? -1 : characters(text.slice(0, offset)).length);

function affixes(value: Value | undefined): readonly string[] {
  if (value instanceof Undefined) fail(value.problem);
  const list = value instanceof Tuple ? value.items : [value];
  return list.map((item) => {
    if (typeof item === "string") return item;
    return fail(`TypeError: a text or a tuple of texts is expected, not ${typeName(item ?? null)}`);
  });
}

function partition(text: string, separator: string, offset: number, isLast: boolean): Tuple {
  if (separator === "") fail("ValueError: empty separator");
  if (offset < 0) return new Tuple(isLast ? ["", "", text] : [text, "", ""]);
  return new Tuple([text.slice(0, offset), separator, text.slice(offset + separator.length)]);
}

const pad = (text: string, args: Arguments, side: Side): string => {
  const missing = Math.max(0, (args.integer("width") ?? 0) - characters(text).length);
  const fill = args.text("fillchar") ?? " ";
  // Python puts the odd one to the left where the width is odd.
  const width = characters(text).length + missing;
  const left =
    side === "left" ? missing : side === "right" ? 0 : (missing >> 1) + (missing & width & 1);
  return repeated(fill, left) + text + repeated(fill, missing - left);
};

type Method = (text: string, args: Arguments) => Value;
const method = (parameters: readonly string[], run: Method): [readonly string[], Method] => [
  parameters,
  run,
];
const search = (
  find: (text: string, part: string) => number,
  isRequired: boolean,
): [readonly string[], Method] =>
  method(["sub"], (text, args) => {
    const offset = find(text, args.requiredText("sub"));
    if (isRequired && offset < 0) fail("ValueError: substring not found");
    return place(text, offset);
  });
const first = (text: string, part: string): number => text.indexOf(part);
const last = (text: string, part: string): number => text.lastIndexOf(part);

const methods: Readonly<Record<string, [readonly string[], Method]>> = {
  capitalize: method([], capitalize),
  casefold: method([], (text) => text.toLowerCase()),
  center: method(["width", "fillchar"], (text, args) => pad(text, args, "both")),
  count: method(["sub"], (text, args) => {
    const part = args.requiredText("sub");
    return BigInt(part === "" ? characters(text).length + 1 : text.split(part).length - 1);
  }),
  endswith: method(["suffix"], (text, args) =>
    affixes(args.get("suffix")).some((suffix) => text.endsWith(suffix)),
  ),
  find: search(first, false),
  index: search(first, true),
  isalnum: method([], isAll(/^[\p{L}\p{N}]+$/u)),
  isalpha: method([], isAll(/^\p{L}+$/u)),
  isdecimal: method([], isAll(/^\p{Nd}+$/u)),
  isdigit: method([], isAll(/^[\p{Nd}\u00b2\u00b3\u00b9\u2070-\u2079\u2080-\u2089]+$/u)),
  islower: method([], (text) => isCase(text, text.toLowerCase(), text.toUpperCase())),
  isnumeric: method([], isAll(/^\p{N}+$/u)),
  isspace: method([], (text) => text !== "" && strip(text, undefined) === ""),
  istitle: method([], (text) => isCase(text, titleCase(text), text.toLowerCase())),
  isupper: method([], (text) => isCase(text, text.toUpperCase(), text.toLowerCase())),
  join: method(["iterable"], (text, args) =>
    joined(
      iterate(args.get("iterable") ?? null).map((item) => {
        if (typeof item === "string") return item;
        return fail(`TypeError: join() expects texts, not ${typeName(item)}`);
      }),
      text,
    ),
  ),
  ljust: method(["width", "fillchar"], (text, args) => pad(text, args, "right")),
  lower: method([], (text) => text.toLowerCase()),
  lstrip: method(["chars"], (text, args) => strip(text, args.text("chars"), "left")),
  partition: method(["sep"], (text, args) => {
    const separator = args.requiredText("sep");
    return partition(text, separator, text.indexOf(separator), false);
  }),
  removeprefix: method(["prefix"], (text, args) => {
    const prefix = args.requiredText("prefix");
    return text.startsWith(prefix) ? text.slice(prefix.length) : text;
  }),
  removesuffix: method(["suffix"], (text, args) => {
    const suffix = args.requiredText("suffix");
    return text.endsWith(suffix) ? text.slice(0, text.length - suffix.length) : text;
  }),
  replace: method(["old", "new", "count"], (text, args) =>
    replace(text, args.requiredText("old"), args.requiredText("new"), args.integer("count")),
  ),
  rfind: search(last, false),
  rindex: search(last, true),
  rjust: method(["width", "fillchar"], (text, args) => pad(text, args, "left")),
  rpartition: method(["sep"], (text, args) => {
    const separator = args.requiredText("sep");
    return partition(text, separator, text.lastIndexOf(separator), true);
  }),
  rsplit: method(["sep", "maxsplit"], (text, args) =>
    split(text, args.text("sep"), args.integer("maxsplit") ?? -1, true),
  ),
  rstrip: method(["chars"], (text, args) => strip(text, args.text("chars"), "right")),
  split: method(["sep", "maxsplit"], (text, args) =>
    split(text, args.text("sep"), args.integer("maxsplit") ?? -1),
  ),
  splitlines: method(["keepends"], (text, args) => {
    const lines = text.match(
      /[^\n-\r\x1c-\x1e\x85\u2028\u2029]*(?:\r\n|[\n-\r\x1c-\x1e\x85\u2028\u2029]|$)/g,
    );
    const kept = (lines ?? []).slice(0, -1);
    const tail = lines?.at(-1) ?? "";
    const all = tail === "" ? kept : [...kept, tail];
    return args.integer("keepends")
      ? all
      : all.map((line) => line.replace(/(?:\r\n|[\n-\r\x1c-\x1e\x85\u2028\u2029])$/, ""));
  }),
  startswith: method(["prefix"], (text, args) =>
    affixes(args.get("prefix")).some((prefix) => text.startsWith(prefix)),
  ),
  strip: method(["chars"], (text, args) => strip(text, args.text("chars"))),
  swapcase: method([], (text) =>
    Array.from(text, (c) => (c === c.toUpperCase() ? c.toLowerCase() : c.toUpperCase())).join(""),
  ),
  title: method([], titleCase),
  upper: method([], (text) => text.toUpperCase()),
  zfill: method(["width"], (text, args) => {
    const sign = /^[-+]/.exec(text)?.[0] ?? "";
    const missing = Math.max(0, (args.integer("width") ?? 0) - characters(text).length);
    return sign + repeated("0", missing) + text.slice(sign.length);
  }),
};

/** A method of Python's `str`, bound to a text; undefined where it is not one of those supported. */
export function stringMethod(text: string, name: string): Callable | undefined {
  const found = Object.hasOwn(methods, name) ? methods[name] : undefined;
  if (found === undefined) return undefined;
  const [parameters, run] = found;
  return new Callable((args, keywords) => {
    for (const value of [text, ...args]) spendOn(value);
    const result = run(text, new Arguments(name, parameters, args, keywords));
    spendOn(result);
    return result;
  });
}

/** Jinja's filters that are methods of a text, of any value's text. */
export const caseFilter =
  (name: string) =>
  (value: Value): Value =>
    stringMethod(textOf(value), name)?.call([], new Map()) ?? "";
