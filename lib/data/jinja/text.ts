import { spend } from "./budget.js";
import {
  compareText,
  type Dict,
  fail,
  isDict,
  Namespace,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from "./values.js";

/** Python's `str()`, with Jinja's empty text for what is undefined. */
export function textOf(value: Value): string {
  if (typeof value === "string") return value;
  return value instanceof Undefined ? "" : reprOf(value);
}

/** Python's `repr()`. */
export function reprOf(value: Value): string {
  spend(1);
  if (value === null) return "None";
  switch (typeof value) {
    case "boolean":
      return value ? "True" : "False";
    case "bigint":
      return String(value);
    case "number":
      return floatText(value);
    case "string":
      spend(value.length);
      return reprOfText(value);
    default:
  }
  if (Array.isArray(value)) return `[${value.map(reprOf).join(", ")}]`;
  if (value instanceof Tuple) {
    const [only, ...more] = value.items.map(reprOf);
    return more.length === 0
      ? `(${only === undefined ? "" : `${only},`})`
      : `(${[only, ...more].join(", ")})`;
  }
  if (isDict(value)) return reprOfEntries(value);
  if (value instanceof Undefined) return "Undefined";
  if (value instanceof Namespace) return `<Namespace ${reprOfEntries(value.attributes)}>`;
  return fail("a function is written as text");
}

const reprOfEntries = (entries: ReadonlyMap<Value, Value>): string =>
  `{${[...entries].map(([key, value]) => `${reprOf(key)}: ${reprOf(value)}`).join(", ")}}`;

/** A float as Python writes it: the shortest digits that are read back as the same value. */
function floatText(value: number): string {
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value < 0 ? "-inf" : "inf";
  if (Object.is(value, -0)) return "-0.0";
  const [mantissa = "", exponentText = ""] = value.toExponential().split("e");
  const exponent = Number(exponentText);
  if (exponent < -4 || exponent >= 16) {
    const digits = String(Math.abs(exponent)).padStart(2, "0");
    return `${mantissa}e${exponent < 0 ? "-" : "+"}${digits}`;
  }
  const sign = value < 0 ? "-" : "";
  const digits = mantissa.replace(/[-.]/g, "");
  if (exponent < 0) return `${sign}0.${"0".repeat(-exponent - 1)}${digits}`;
  const whole = digits.slice(0, exponent + 1).padEnd(exponent + 1, "0");
  return `${sign}${whole}.${digits.slice(exponent + 1) || "0"}`;
}

const escapes: Readonly<Record<string, string>> = {
  "\\": "\\\\",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
};

function reprOfText(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  let result = "";
  for (const character of text) {
    const isPlain = character === " " || !/[\p{C}\p{Z}]/u.test(character);
    if (character === quote) result += `\\${quote}`;
    else if (escapes[character] !== undefined) result += escapes[character];
    else result += isPlain ? character : escapedCharacter(character.codePointAt(0) ?? 0);
  }
  return `${quote}${result}${quote}`;
}

function escapedCharacter(code: number): string {
  const hex = (length: number): string => code.toString(16).padStart(length, "0");
  if (code < 0x100) return `\\x${hex(2)}`;
  return code < 0x10000 ? `\\u${hex(4)}` : `\\U${hex(8)}`;
}

interface JsonStyle {
  readonly ensureAscii?: boolean;
  /** What a level is indented by; null writes all in one line. */
  readonly indent?: string | null;
  readonly separators?: readonly [string, string] | null;
  readonly sortKeys?: boolean;
}

/**
 * Python's `json.dumps`, as the `tojson` of transformers calls it.
 *
 * @throws TemplateError for what is not JSON
 */
export function jsonText(value: Value, style: JsonStyle = {}): string {
  const { ensureAscii = false, indent = null, sortKeys = false } = style;
  const [comma, colon] = style.separators ?? [indent === null ? ", " : ",", ": "];
  const write = (item: Value, lineStart: string): string => {
    spend(1);
    if (item === null) return "null";
    if (typeof item === "boolean") return item ? "true" : "false";
    if (typeof item === "bigint") return String(item);
    if (typeof item === "number") return jsonFloat(item);
    if (typeof item === "string") {
      spend(item.length / 4);
      return jsonString(item, ensureAscii);
    }
    const inner = indent === null ? "" : lineStart + indent;
    const enclose = (open: string, parts: readonly string[], close: string): string =>
      parts.length === 0
        ? open + close
        : indent === null
          ? open + parts.join(comma) + close
          : open + inner + parts.join(comma + inner) + lineStart + close;
    const items = item instanceof Tuple ? item.items : item;
    if (Array.isArray(items)) {
      return enclose(
        "[",
        (items as readonly Value[]).map((each) => write(each, inner)),
        "]",
      );
    }
    if (item instanceof Map) {
      const entries = keyedEntries(item, sortKeys);
      const parts = entries.map(([key, each]) => {
        return jsonString(key, ensureAscii) + colon + write(each, inner);
      });
      return enclose("{", parts, "}");
    }
    return fail(`TypeError: Object of type ${typeName(item)} is not JSON serializable`);
  };
  return write(value, indent === null ? "" : "\n");
}

const jsonFloat = (value: number): string =>
  Number.isFinite(value)
    ? floatText(value)
    : Number.isNaN(value)
      ? "NaN"
      : value < 0
        ? "-Infinity"
        : "Infinity";

function keyedEntries(dict: Dict, sortKeys: boolean): [string, Value][] {
  const entries = [...dict].map(([key, value]): [string, Value] => {
    if (typeof key === "string") return [key, value];
    if (key === null || ["boolean", "bigint", "number"].includes(typeof key)) {
      return [jsonText(key), value];
    }
    return fail(`TypeError: keys must be str, int, float, bool or None, not ${typeName(key)}`);
  });
  return sortKeys ? entries.sort(([a], [b]) => compareText(a, b)) : entries;
}

const shortEscapes: Readonly<Record<string, string>> = {
  "\\": "\\\\",
  '"': '\\"',
  "\b": "\\b",
  "\f": "\\f",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
};

function jsonString(text: string, ensureAscii: boolean): string {
  const escaped = text.replace(ensureAscii ? /["\\]|[^ -~]/g : /["\\\u0000-\u001f]/g, (unit) => {
    return shortEscapes[unit] ?? `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
  return `"${escaped}"`;
}
