import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { countTargets, inputFields, nextTokenField } from "#lib/core/batch";
import { createMixedPlan, type PlanPart } from "#lib/data/index";
import type { TrainingRows } from "#lib/data/rows";

/** Rows whose first token says which they are; one in three has a target less. */
const rowsOf = (numRows: number, sequenceLength: number): TrainingRows => {
  const weightOf = (row: number): number => sequenceLength - 1 - (row % 3 === 0 ? 1 : 0);
  return {
    ...{ numRows, sequenceLength, numTokens: numRows * sequenceLength, droppedTokens: 0 },
    ...{ inputs: inputFields(), targets: [nextTokenField] },
    lengthOf: () => sequenceLength,
    lossWeight: weightOf,
    write: (row, into) => {
      into.tokens.fill(row);
      into.targets[nextTokenField.name]?.fill(1, 0, weightOf(row));
    },
  };
};

const settings = fc.record({
  sizes: fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 2, maxLength: 4 }),
  masses: fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 4, maxLength: 4 }),
  microBatchSize: fc.integer({ min: 1, max: 3 }),
  numMicroBatches: fc.integer({ min: 1, max: 5 }),
  groups: fc.integer({ min: 1, max: 3 }),
  seed: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
});

function planOf({
  sizes,
  masses,
  microBatchSize,
  numMicroBatches,
  groups,
  seed,
}: typeof settings extends fc.Arbitrary<infer T> ? T : never) {
  const sum = sizes.reduce((total, _, i) => total + (masses[i] ?? 1), 0);
  const parts = sizes.map(
    (size, i): PlanPart => ({
      rows: rowsOf(size, 4 + i),
      ...{ task: i, term: Math.min(i, 1), share: (masses[i] ?? 1) / sum },
    }),
  );
  const gradientGroups = Math.min(groups, numMicroBatches);
  const rowsPerStep = microBatchSize * numMicroBatches;
  const plan = createMixedPlan(parts, {
    ...{ seed, rowsPerStep, microBatchSize, gradientGroups, maxSteps: 12 },
  });
  return { plan, parts, rowsPerStep, gradientGroups };
}

test("steps are whole, shares are kept to a row, each pass takes every row once, and terms weigh their own", () => {
  fc.assert(
    fc.property(settings, (given) => {
      const { plan, parts, rowsPerStep, gradientGroups } = planOf(given);
      const seen = parts.map((): number[] => []);
      for (let step = 0; step < plan.totalSteps; step++) {
        const batches = Array.from({ length: gradientGroups }, (_, group) =>
          plan.microBatches(step, group),
        );
        const sizes = batches.map(({ length }) => length);
        assert.ok(Math.min(...sizes) >= 1 && Math.max(...sizes) - Math.min(...sizes) <= 1);
        const weights = [0, 0];
        let numRows = 0;
        let numTokens = 0;
        for (const batch of batches.flat()) {
          const { task = 0 } = batch;
          const { sequenceLength } = (parts[task] as PlanPart).rows;
          const targets = batch.fields[nextTokenField.name] as Int32Array;
          const term = Math.min(task, 1);
          weights[term] = (weights[term] ?? 0) + countTargets(targets);
          for (let row = 0; row < batch.numRows; row++) {
            if ((targets[row * sequenceLength] ?? -1) < 0) continue;
            seen[task]?.push(batch.fields["tokens"]?.[row * sequenceLength] ?? -1);
            numRows += 1;
            numTokens += sequenceLength;
          }
        }
        assert.equal(numRows, rowsPerStep);
        assert.equal(numTokens, plan.tokensIn?.(step));
        assert.deepEqual(plan.lossWeights?.(step), weights);
        for (const [part, { share }] of parts.entries()) {
          const due = share * rowsPerStep * (step + 1);
          assert.ok(Math.abs((seen[part]?.length ?? 0) - due) < parts.length, `part ${part}`);
        }
      }
      for (const [part, { rows }] of parts.entries()) {
        const taken = seen[part] ?? [];
        for (let start = 0; start < taken.length; start += rows.numRows) {
          const pass = taken.slice(start, start + rows.numRows);
          assert.equal(new Set(pass).size, pass.length, `pass from ${start} of part ${part}`);
        }
      }
      // Whoever asks first, and for what.
      const again = planOf(given).plan;
      assert.deepEqual(again.microBatches(11, 0), plan.microBatches(11, 0));
    }),
    { numRuns: 60 },
  );
});

test("an epoch has room for a pass over all rows but replayed ones, and parts of a size have orders of their own", () => {
  const options = { seed: 3, rowsPerStep: 8, microBatchSize: 2, gradientGroups: 1, numEpochs: 2 };
  const rows = rowsOf(24, 4);
  const own: PlanPart = { rows, task: 0, term: 0, share: 0.75 };
  const replay: PlanPart = { rows, task: 0, term: 0, share: 0.25, isReplay: true };
  const replayed = createMixedPlan([own, replay], options);
  // 24 rows, 6 a step.
  assert.deepEqual([replayed.stepsPerEpoch, replayed.totalSteps], [4, 8]);
  const tasks = createMixedPlan([own, { ...replay, isReplay: false, task: 1, term: 1 }], options);
  assert.equal(tasks.stepsPerEpoch, 6);
  assert.equal(tasks.epochAt(9), 1.5);
  const first = (task: number): number[] =>
    Array.from({ length: 6 }, (_, step) => tasks.microBatches(step, 0))
      .flat()
      .filter((batch) => (batch.task ?? 0) === task)
      .flatMap((batch) => [batch.fields["tokens"]?.[0] ?? -1, batch.fields["tokens"]?.[4] ?? -1])
      .slice(0, 12);
  assert.notDeepEqual(first(0), first(1));
});
