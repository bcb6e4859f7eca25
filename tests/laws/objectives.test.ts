import assert from "node:assert/strict";
import { test } from "node:test";
import { objectives } from "#lib/objectives/index";
import { tracedObjectives } from "#lib/tuning/objectives/index";

test("each objective has both its halves, under one name", () => {
  const kinds = objectives.map(({ kind }) => kind);
  assert.equal(new Set(kinds).size, kinds.length);
  assert.deepEqual(
    tracedObjectives.map(({ kind }) => kind),
    kinds,
  );
});

test("what a metric says of itself fits the rows that it is made of", () => {
  for (const { kind, metrics, outputs, scorer } of objectives) {
    const scored = metrics.some(({ ofLoss }) => ofLoss === undefined);
    assert.equal(scorer !== undefined, scored, `${kind}: a scorer and metrics of its own`);
    assert.equal(outputs !== undefined, scored, `${kind}: outputs and metrics made of them`);
    for (const { key } of metrics) assert.match(key, /^[a-z][a-z0-9_]*(\/[a-z]+)?$/);
  }
});
