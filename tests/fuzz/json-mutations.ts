import { maxInputBytes } from "./byte-mutations.js";
import type { Draw } from "./draw.js";

/** JSON text that stands as it is, for what JavaScript's values cannot be. */
class Text {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

type Json = null | boolean | number | string | Json[] | { [key: string]: Json } | Text;

const depth = 5_000;
const values: readonly Json[] = [
  null,
  true,
  false,
  0,
  -1,
  1,
  0.5,
  1e-320,
  2 ** 31,
  2 ** 32,
  2 ** 53,
  1e18,
  1e308,
  "",
  "a",
  "0",
  "\0",
  "__proto__",
  "constructor",
  "../../../etc/passwd",
  "a".repeat(5_000),
  "\ud83d\ude00",
  [],
  {},
  [[]],
  [0],
  [null],
  ["a", "a"],
  { a: 1 },
  { "": "" },
  new Text("1e999"),
  new Text("-1e999"),
  new Text("-0"),
  new Text("NaN"),
  new Text("9007199254740993"),
  new Text('"\\ud800"'),
  new Text('{"a":1,"a":2}'),
  new Text('{"__proto__":{"a":1}}'),
  new Text(`${"[".repeat(depth)}${"]".repeat(depth)}`),
  new Text(`${'{"a":'.repeat(depth)}1${"}".repeat(depth)}`),
  new Text(`[${"0,".repeat(5_000)}0]`),
];

/** A value of its own: documents are changed in place. */
function drawValue(draw: Draw): Json {
  const value = draw.pick(values);
  return value instanceof Text ? value : (JSON.parse(JSON.stringify(value)) as Json);
}

/** A JSON document with one to four values or keys of it changed; still JSON but for what JSON has no words for. */
export function mutateJson(valid: Uint8Array, draw: Draw): Buffer {
  let root = JSON.parse(Buffer.from(valid).toString("utf8")) as Json;
  const numChanges = draw.oneIn(2) ? 1 : draw.between(1, 4);
  for (let i = 0; i < numChanges; i++) {
    const holders = [...containers(root)];
    if (holders.length === 0 || draw.oneIn(50)) root = drawValue(draw);
    else change(draw.pick(holders), holders, draw);
  }
  return Buffer.from(written(root)).subarray(0, maxInputBytes);
}

type Holder = Json[] | { [key: string]: Json };

function* containers(value: Json): Generator<Holder> {
  if (typeof value !== "object" || value === null || value instanceof Text) return;
  yield value;
  for (const each of Object.values(value)) yield* containers(each);
}

function change(holder: Holder, holders: readonly Holder[], draw: Draw): void {
  const keys = Object.keys(holder);
  const entries = holder as { [key: string]: Json };
  if (keys.length === 0) {
    if (Array.isArray(holder)) holder.push(drawValue(draw));
    else holder["a"] = drawValue(draw);
    return;
  }
  const key = draw.pick(keys);
  const value = entries[key] ?? null;
  switch (draw.below(9)) {
    case 0:
      if (Array.isArray(holder)) holder.splice(Number(key), 1);
      else delete holder[key];
      return;
    case 1:
      // The same key twice, by a value that ends in one more entry.
      if (!Array.isArray(holder)) {
        const again = `,${JSON.stringify(key)}:${written(drawValue(draw))}`;
        entries[key] = new Text(written(value) + again);
      } else holder.push(value);
      return;
    case 2:
      if (Array.isArray(holder)) holder.reverse();
      else renameKey(holder, key, draw.pick(["", "a", "__proto__", key.toUpperCase(), `${key} `]));
      return;
    case 3:
      entries[key] = Array.isArray(value) ? (value[0] ?? null) : [value];
      return;
    case 4: {
      // Another part of the document, which has the wrong type more often than not.
      const other = draw.pick(holders);
      const copy = new Text(written(draw.oneIn(2) ? other : (Object.values(other)[0] ?? null)));
      if (copy.text.length < maxInputBytes / 4) entries[key] = copy;
      return;
    }
    case 5:
      if (typeof value === "number") {
        entries[key] = draw.pick([-value, value + 1, value * 2 ** 20, value / 3, String(value)]);
        return;
      }
      if (typeof value === "string") {
        const at = draw.below(value.length + 1);
        entries[key] = value.slice(0, at) + draw.pick(["", "\0", "\n", "x", "{{", "\u2028"]);
        return;
      }
      entries[key] = drawValue(draw);
      return;
    default:
      entries[key] = drawValue(draw);
  }
}

function renameKey(holder: { [key: string]: Json }, key: string, name: string): void {
  const value = holder[key] ?? null;
  delete holder[key];
  Object.defineProperty(holder, name, {
    ...{ value, enumerable: true, configurable: true, writable: true },
  });
}

function written(value: Json): string {
  if (value instanceof Text) return value.text;
  if (Array.isArray(value)) return `[${value.map(written).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const entries = Object.entries(value).map(
    ([key, each]) => `${JSON.stringify(key)}:${written(each)}`,
  );
  return `{${entries.join(",")}}`;
}
