import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { packageRoot } from "#lib/core/paths";
import { compileTemplate, type Value } from "#lib/data/jinja/index";
import { strftime } from "#lib/data/jinja/strftime";
import { isJsonObject, jsonDataOf, parseJsonData, templateValue } from "#lib/data/json-data";

interface Fixture {
  readonly data: string;
  readonly numbers: readonly { json: string; tojson: string; text: string; list: string }[];
  readonly templates: readonly { source: string; text: string | null }[];
  readonly dates: readonly { date: string; texts: Readonly<Record<string, string>> }[];
}

const fixture = JSON.parse(
  await readFile(join(packageRoot, "tests/fixtures/conversations/jinja.json"), "utf8"),
) as Fixture;
const data = parseJsonData(fixture.data);
assert.ok(isJsonObject(data));
const variables = Object.fromEntries(
  [...data].map(([name, value]): [string, Value] => [name, templateValue(value)]),
);
const render = (source: string, values: Readonly<Record<string, Value>> = variables): string =>
  compileTemplate(source).render(values, new Date(2024, 6, 6));

test("numbers are printed as Python prints them, as JSON and as text", () => {
  for (const { json, tojson, text, list } of fixture.numbers) {
    const values = { x: templateValue(parseJsonData(json)) };
    assert.equal(render("{{ x | tojson }}", values), tojson, json);
    assert.equal(render("{{ x }}", values), text, json);
    assert.equal(render("{{ [x] }}", values), list, json);
  }
});

test("templates render as in transformers, or are refused", () => {
  const wrong: unknown[] = [];
  for (const { source, text } of fixture.templates) {
    let found: string | null;
    try {
      found = render(source);
    } catch {
      found = null;
    }
    if (found !== text) wrong.push({ source, found, text });
  }
  assert.deepEqual(wrong, []);
});

test("dates are written as Python's strftime writes them", () => {
  for (const { date, texts } of fixture.dates) {
    const [year = 0, month = 0, day = 0] = date.split("-").map(Number);
    for (const [format, text] of Object.entries(texts)) {
      assert.equal(strftime(new Date(year, month - 1, day), format), text, `${date} ${format}`);
    }
  }
});

test("JSON that is read keeps the order of keys, and equals what JavaScript reads", () => {
  const ordered = parseJsonData('{"10": 1, "2": {"b": [], "a": null}, "__proto__": "x", "10": 2}');
  assert.equal(
    render("{{ x | tojson }}", { x: templateValue(ordered) }),
    ['{"10": 2, "2": {"b": [], "a": null}, "__proto__": "x"}'].join(),
  );
  fc.assert(
    fc.property(fc.json({ maxDepth: 6 }), (text) => {
      const plain = (value: Value): unknown => {
        if (value instanceof Map) {
          return Object.fromEntries([...value].map(([key, each]) => [key, plain(each)]));
        }
        if (Array.isArray(value)) return value.map(plain);
        return typeof value === "bigint" ? Number(value) : value;
      };
      assert.deepEqual(
        JSON.stringify(plain(templateValue(parseJsonData(text)))),
        JSON.stringify(JSON.parse(text)),
      );
    }),
  );
  const long = 'x\\\\\\"é\n'.repeat(2 ** 21);
  assert.deepEqual(parseJsonData(JSON.stringify([long, "\\"])), [long, "\\"]);
  assert.throws(() => parseJsonData("[".repeat(9000) + "]".repeat(9000)), RangeError);
  assert.throws(() => jsonDataOf(JSON.parse("[".repeat(9000) + "]".repeat(9000))), RangeError);
});
