import assert from "node:assert/strict";
import { test } from "node:test";
import { ClassCounts } from "#lib/objectives/class-counts";

test("scores are those of scikit-learn, worked out by hand", () => {
  const counts = new ClassCounts(4);
  counts.add(Int32Array.of(0, 1, 2), Int32Array.of(0, 2, 2));
  counts.add(Int32Array.of(2, -100, 1), Int32Array.of(2, 0, 1));
  assert.equal(counts.accuracy(), 4 / 5);
  // F1 of the classes: 1, 2/3 and 4/5; nothing is of the fourth.
  assert.ok(Math.abs(counts.macroF1() - (1 + 2 / 3 + 4 / 5) / 3) < 1e-15);
});

test("a class that is only predicted pulls macro-F1 down", () => {
  const counts = new ClassCounts(2);
  counts.add(Int32Array.of(0, 0), Int32Array.of(0, 1));
  assert.deepEqual([counts.accuracy(), counts.macroF1()], [1 / 2, 1 / 3]);
});
