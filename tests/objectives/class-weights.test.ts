import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { isLockstepError } from "#lib/core/errors/index";
import {
  balancedPositiveWeights,
  balancedWeights,
  classWeightsOf,
} from "#lib/objectives/class-weights";
import { objectiveOf } from "#lib/objectives/index";

type Asked = "balanced" | Readonly<Record<string, number>> | null;

/** The nearest multiple of 2^-31, the fraction of weights whose largest is 2. */
const near = (weight: number): number => Math.round(weight * 2 ** 31) / 2 ** 31;

/** @param rows the class of each row */
function weightsOf(
  asked: Asked,
  names: readonly string[],
  rows: readonly number[] = [],
): readonly number[] | undefined {
  const { kind, settings } = objectiveOf("single_label_classification");
  const labels = {
    names,
    numRows: rows.length,
    targetsOf: (row: number) => ({ label: Int32Array.of(rows[row] ?? -1) }),
    placeOf: (key: string) => `job.yaml:7, ${key}`,
  };
  const config = { class_weights: asked, label_smoothing_factor: 0 };
  return classWeightsOf({ kind, settings: settings?.(config, labels) ?? {} });
}

test("balanced weights are those of scikit-learn, and of a class that no row has 1", () => {
  const counts = { rows: [6, 3, 0, 1], numRows: 10 };
  assert.deepEqual(balancedWeights(counts), [10 / 18, 10 / 9, 1, 10 / 3]);
  // Of several labels a row: rows without the class over rows with it.
  assert.deepEqual(balancedPositiveWeights(counts), [4 / 6, 7 / 3, 1, 9]);
  assert.deepEqual(balancedPositiveWeights({ ...counts, rows: [10, 0, 5, 5] }), [1, 1, 1, 1]);
});

test("weights are by the classes' names, or by the numbers of classes without names", () => {
  assert.equal(weightsOf(null, ["ham", "spam"]), undefined);
  assert.deepEqual(weightsOf({ spam: 3, ham: 0.5 }, ["ham", "spam"]), [0.5, 3]);
  assert.deepEqual(weightsOf({ 1: 3, LABEL_0: 1 }, ["LABEL_0", "LABEL_1"]), [1, 3]);
  assert.deepEqual(weightsOf("balanced", ["ham", "spam"], [1, 0, 1, 1]), [2, 2 / 3].map(near));
  for (const [asked, message] of [
    [
      { spam: 3 },
      /^E_CONFIG_INVALID: .*class_weights.*ham, spam.*none for "ham" \(job\.yaml:7, class_weights\)/,
    ],
    [{ spam: 3, ham: 1, egg: 2 }, /^E_CONFIG_INVALID: .*one for "egg"/],
    [{ Spam: 3, ham: 1 }, /none for "spam"/],
    [{ 0: 1, 1: 3 }, /none for "ham"/],
  ] as const) {
    assert.throws(
      () => weightsOf({ ...asked }, ["ham", "spam"]),
      (error) => isLockstepError(error) && message.test(`${error.code}: ${error.message}`),
    );
  }
});

test("rounded weights stay near, and their sums are exact in any order", () => {
  const weight = fc.double({ min: 1e-4, max: 1e4, noNaN: true });
  fc.assert(
    fc.property(
      fc.array(weight, { minLength: 1, maxLength: 8 }),
      fc.array(fc.nat(), { maxLength: 300 }),
      (weights, rows) => {
        const names = weights.map((_, label) => `class ${label}`);
        const asked = Object.fromEntries(names.map((name, label) => [name, weights[label] ?? 0]));
        const rounded = weightsOf(asked, names) ?? [];
        const largest = Math.max(...weights);
        for (const [label, each] of rounded.entries()) {
          assert.ok(each > 0 && Math.abs(each - (weights[label] as number)) <= largest * 2 ** -31);
        }
        const { weightOf } = objectiveOf("single_label_classification");
        const job = { kind: "single_label_classification", settings: { classWeights: rounded } };
        const labels = Int32Array.from(rows, (row) => row % weights.length);
        const whole = weightOf({ label: labels }, job);
        assert.equal(weightOf({ label: labels.toReversed() }, job), whole);
        const parts = [labels.subarray(0, 7), labels.subarray(7)];
        const sum = parts.reduce((total, part) => total + weightOf({ label: part }, job), 0);
        assert.equal(sum, whole);
      },
    ),
  );
});

test("rows of padding weigh nothing", () => {
  const { weightOf } = objectiveOf("single_label_classification");
  const job = { kind: "single_label_classification", settings: { classWeights: [0.25, 4] } };
  assert.equal(weightOf({ label: Int32Array.of(1, -100, 0, 1) }, job), 8.25);
});

test("products of the weights of classes and of rows are counted exactly, or refused", () => {
  const objective = objectiveOf("single_label_classification");
  const jobOf = (classes: readonly number[], rows: readonly number[]) => {
    const targetsOf = (row: number) => ({
      label: Int32Array.of(row % classes.length),
      weights: Float32Array.of(rows[row] ?? 1),
    });
    const names = classes.map((_, number) => `class ${number}`);
    const config = {
      class_weights: Object.fromEntries(names.map((name, number) => [name, classes[number] ?? 0])),
      ...{ label_smoothing_factor: 0, z_loss_weight: 0 },
    };
    const labels = { names, numRows: rows.length, targetsOf, placeOf: () => "" };
    const settings = objective.settings?.(config, labels) ?? {};
    return { job: { kind: objective.kind, settings, isWeighted: true }, targetsOf };
  };
  const quarter = fc.integer({ min: 1, max: 4096 }).map((count) => count / 4);
  fc.assert(
    fc.property(
      fc.array(fc.double({ min: 0.01, max: 100, noNaN: true }), { minLength: 2, maxLength: 4 }),
      fc.array(quarter, { minLength: 1, maxLength: 50 }),
      (classes, weights) => {
        // Within what may lie between two products.
        const rows = weights.map((weight) => Math.min(weight, 16));
        const { job, targetsOf } = jobOf(classes, rows);
        const counted = rows.map((_, row) => objective.weightOf(targetsOf(row), job));
        const add = (values: readonly number[]): number =>
          values.reduce((sum, one) => sum + one, 0);
        assert.equal(add(counted), add(counted.toReversed()));
        for (const [row, count] of counted.entries()) {
          const product = (classes[row % classes.length] ?? 0) * (rows[row] ?? 0);
          assert.ok(Math.abs(count / product - 1) <= 1.1e-5, `${count} for ${product}`);
        }
      },
    ),
  );
  assert.throws(
    () => jobOf([1e-3, 10], [0.01, 1024]),
    (error) => isLockstepError(error) && /class_weights and weights of rows/.test(error.message),
  );
  // Classes far apart, of which one step may have the light one alone.
  const { job, targetsOf } = jobOf([1e-4, 1e4], [1, 1]);
  assert.equal(objective.weightOf(targetsOf(0), job), classWeightsOf(job)?.[0]);
  // Rows without weights of their own take any weights of classes.
  assert.doesNotThrow(() => weightsOf({ a: 1e-4, b: 1e4 }, ["a", "b"], [0, 1]));
});
