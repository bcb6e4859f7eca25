/**
 * JSON as Python's `json.dumps(value, indent=..., sort_keys=True)` writes it, so that files are equal
 * to the byte to those of transformers. Python tells integers from floats and JavaScript does not:
 * `isInteger(key)` says which keys hold integers; every other number is written as a float.
 * NaN and infinities become null, which strict readers accept.
 */
export function formatPythonJson(
  value: unknown,
  isInteger: (key: string) => boolean,
  options: { readonly indent?: number } = {},
): string {
  return format(value, isInteger, " ".repeat(options.indent ?? 2), "", "");
}

function format(
  value: unknown,
  isInteger: (key: string) => boolean,
  unit: string,
  key: string,
  indent: string,
): string {
  if (value === null || value === undefined) return "null";
  if (typeof value === "number") {
    if (!Number.isFinite(value)) return "null";
    return isInteger(key) && Number.isInteger(value) ? String(value) : pythonFloat(value);
  }
  if (typeof value === "string") return asciiString(value);
  if (typeof value === "boolean") return String(value);
  if (typeof value !== "object") throw new TypeError(`A ${typeof value} has no form in JSON.`);
  const inner = indent + unit;
  const items = Array.isArray(value)
    ? value.map((item) => format(item, isInteger, unit, key, inner))
    : Object.entries(value)
        .filter(([, item]) => item !== undefined)
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([k, item]) => `${asciiString(k)}: ${format(item, isInteger, unit, k, inner)}`);
  const [open, close] = Array.isArray(value) ? ["[", "]"] : ["{", "}"];
  if (items.length === 0) return open + close;
  return `${open}\n${inner}${items.join(`,\n${inner}`)}\n${indent}${close}`;
}

/** Python's repr of a finite float: shortest digits, exponent form below 1e-4 and from 1e16 on. */
export function pythonFloat(value: number): string {
  if (Object.is(value, -0)) return "-0.0";
  const [mantissa, exponentText] = value.toExponential().split("e") as [string, string];
  const exponent = Number(exponentText);
  if (exponent < -4 || exponent >= 16) {
    const digits = String(Math.abs(exponent)).padStart(2, "0");
    return `${mantissa}e${exponent < 0 ? "-" : "+"}${digits}`;
  }
  const text = String(value);
  return text.includes(".") ? text : `${text}.0`;
}

function asciiString(text: string): string {
  return JSON.stringify(text).replace(
    /[\u007f-\uffff]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
