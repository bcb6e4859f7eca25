import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { packageRoot } from "#lib/core/paths";
import { NumberScores } from "#lib/objectives/number-scores";

type Scores = ReturnType<NumberScores["values"]>;
const keys = ["rmse", "mae", "pearson", "spearmanr"] as const;

function scoresOf(targets: readonly number[], predictions: readonly number[], width = 1): Scores {
  const scores = new NumberScores(width);
  scores.add(new Int32Array(targets.length / width).fill(1), targets, predictions);
  return scores.values();
}

function near(actual: Scores, expected: Scores, tolerance = 1e-12): void {
  for (const key of keys) {
    assert.ok(Math.abs(actual[key] - expected[key]) <= tolerance, `${key} ${actual[key]}`);
  }
}

test("errors and correlations are those worked out by hand, with ties at their mean rank", () => {
  // Ranks 1, 2.5, 2.5, 4 and 2, 1, 3.5, 3.5: their products add up to 2.25 around the mean, their squares to 4.5.
  const actual = scoresOf([1, 2, 2, 5], [2, 1, 3, 3]);
  const expected = {
    rmse: Math.sqrt((1 + 1 + 1 + 4) / 4),
    mae: 5 / 4,
    pearson: 2.5 / Math.sqrt(9 * 2.75),
    spearmanr: 2.25 / 4.5,
  };
  near(actual, expected);
});

test("scores are those of torch", () => {
  const file = join(packageRoot, "tests/fixtures/objectives/number_scores.json");
  const cases = JSON.parse(readFileSync(file, "utf8")) as {
    targets: number[][];
    predictions: number[][];
    scores: Scores;
  }[];
  assert.ok(cases.length > 2);
  for (const { targets, predictions, scores } of cases) {
    near(scoresOf(targets.flat(), predictions.flat(), targets[0]?.length), scores, 1e-9);
  }
});

test("the order of rows and how they are cut into batches change no bit", () => {
  const row = fc.record({
    targets: fc.tuple(fc.integer({ min: -4, max: 4 }), fc.float({ noNaN: true, min: -9, max: 9 })),
    predictions: fc.tuple(fc.float({ noNaN: true, min: -9, max: 9 }), fc.constantFrom(0, 0.5, 1)),
    place: fc.nat(),
    isCounted: fc.boolean(),
  });
  type Row = {
    readonly targets: readonly number[];
    readonly predictions: readonly number[];
    readonly place: number;
    readonly isCounted: boolean;
  };
  const scored = (rows: readonly Row[], batchSize: number): Scores => {
    const scores = new NumberScores(2);
    for (let start = 0; start < rows.length; start += batchSize) {
      const batch = rows.slice(start, start + batchSize);
      scores.add(
        batch.map(({ isCounted }) => (isCounted ? 1 : -100)),
        batch.flatMap(({ targets }) => targets),
        batch.flatMap(({ predictions }) => predictions),
      );
    }
    return scores.values();
  };
  fc.assert(
    fc.property(fc.array(row, { minLength: 1, maxLength: 40 }), (rows) => {
      const shuffled = [...rows].sort((a, b) => a.place - b.place);
      const counted = rows.filter(({ isCounted }) => isCounted);
      assert.deepEqual(scored(shuffled, 3), scored(rows, 7));
      assert.deepEqual(scored(counted, 40), scored(rows, 1));
    }),
  );
});

test("what does not vary correlates with nothing, and a number that is not finite leaves no score", () => {
  const constant = scoresOf([1, 2, 3], [2, 2, 2]);
  assert.deepEqual([constant.pearson, constant.spearmanr, constant.mae], [0, 0, 2 / 3]);
  // A mean of a third would leave a remainder.
  assert.equal(scoresOf([0.1, 0.1, 0.1], [1, 2, 3]).pearson, 0);
  assert.deepEqual(scoresOf([1, 2], [1, 2]), { rmse: 0, mae: 0, pearson: 1, spearmanr: 1 });
  for (const key of keys) assert.ok(Number.isNaN(scoresOf([1, 2], [1, Number.NaN])[key]), key);
});
