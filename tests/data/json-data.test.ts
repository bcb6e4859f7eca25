import assert from "node:assert/strict";
import { test } from "node:test";
import { atPlace, parseJsonData } from "#lib/data/json-data";

test("a row of millions of values is refused by name, with its place, before they are made", () => {
  const row = `{"text": [1e400, ${"[1],".repeat(1_500_000)}[1]]}`;
  assert.throws(() => atPlace("rows.jsonl:3", () => parseJsonData(row)), {
    code: "E_DATA_ROW_FORMAT",
    message: /rows\.jsonl:3.*more than 2000000 values/,
  });
  const deep = "[".repeat(600) + "]".repeat(600);
  assert.throws(() => atPlace("rows.jsonl:4", () => parseJsonData(deep)), /nested too deep/);
  assert.deepEqual(parseJsonData("[1e400, 20.5, null]"), [Number.POSITIVE_INFINITY, 20.5, null]);
});
