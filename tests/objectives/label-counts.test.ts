import assert from "node:assert/strict";
import { test } from "node:test";
import { LabelCounts } from "#lib/objectives/label-counts";

const near = (actual: number, expected: number): void =>
  assert.ok(Math.abs(actual - expected) < 1e-15, `${actual}, not ${expected}`);

test("scores of several labels are those of scikit-learn, worked out by hand", () => {
  const counts = new LabelCounts(3);
  counts.add([1, 0, 0, 1, 1, 0], [1, 0, 0, 1, 0, 0]);
  counts.add([0, 1, 0, -100, -100, -100], [1, 1, 0, 1, 1, 1]);
  // Right, targets and predictions: 2, 2, 3; 1, 2, 1; 0, 0, 0, which counts as 0.
  near(counts.microF1(), (2 * 3) / (4 + 4));
  near(counts.macroF1(), (4 / 5 + 2 / 3 + 0) / 3);
  near(counts.exactMatch(), 1 / 3);
});

test("rows without a label are matched by saying none", () => {
  const counts = new LabelCounts(2);
  counts.add([0, 0, 0, 0], [0, 0, 0, 1]);
  assert.deepEqual([counts.microF1(), counts.macroF1(), counts.exactMatch()], [0, 0, 1 / 2]);
});
