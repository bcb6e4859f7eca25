import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { isLockstepError } from "#lib/core/errors/index";
import { type Batch, ignoredTarget, inputFields, nextTokenField } from "#lib/core/batch";
import { permutation } from "#lib/core/random";
import { createTrainingPlan, evaluationBatches, type TrainingRows } from "#lib/data/index";
import { targetsOf, tokensOf } from "#tests/support/batches";

const sequenceLength = 4;

/** Row r holds tokens 10r+1 .. 10r+4, so that a batch tells which rows it was gathered from. */
const numberedRows = (numRows: number): TrainingRows => ({
  ...{ numRows, sequenceLength, numTokens: numRows * sequenceLength, droppedTokens: 0 },
  inputs: inputFields(),
  targets: [nextTokenField],
  lengthOf: () => sequenceLength,
  lossWeight: () => sequenceLength - 1,
  write(row, into) {
    for (let i = 0; i < sequenceLength; i++) into.tokens[i] = 10 * row + 1 + i;
    into.targets[nextTokenField.name]?.set(into.tokens.subarray(1));
  },
});

/** The rows that are no padding; asserts the static shape and every row's tokens and targets on the way. */
function rowsOf(batches: readonly Batch[], numRows: number): number[] {
  const found: number[] = [];
  for (const batch of batches) {
    assert.equal(batch.numRows, numRows);
    assert.equal(tokensOf(batch).length, numRows * sequenceLength);
    assert.equal(targetsOf(batch).length, numRows * sequenceLength);
    for (let row = 0; row < numRows; row++) {
      const tokens = [
        ...tokensOf(batch).subarray(row * sequenceLength, (row + 1) * sequenceLength),
      ];
      const targets = [
        ...targetsOf(batch).subarray(row * sequenceLength, (row + 1) * sequenceLength),
      ];
      if (tokens[0] === 0) {
        assert.deepEqual(tokens, [0, 0, 0, 0]);
        assert.deepEqual(targets, Array(sequenceLength).fill(ignoredTarget));
      } else {
        assert.deepEqual(targets, [...tokens.slice(1), ignoredTarget]);
        found.push(((tokens[0] ?? 0) - 1) / 10);
      }
    }
  }
  return found;
}

const planShapes = fc
  .record({
    microBatchSize: fc.integer({ min: 1, max: 3 }),
    microBatchesPerStep: fc.integer({ min: 1, max: 5 }),
    groupShare: fc.double({ min: 0, max: 1, noNaN: true }),
    // Below 0 the data have fewer rows than a step.
    extraRows: fc.integer({ min: -15, max: 40 }),
    numEpochs: fc.integer({ min: 1, max: 3 }),
    seed: fc.nat(),
  })
  .map(({ microBatchesPerStep, groupShare, extraRows, ...rest }) => {
    const rowsPerStep = rest.microBatchSize * microBatchesPerStep;
    return {
      ...rest,
      rowsPerStep,
      gradientGroups: 1 + Math.floor(groupShare * (microBatchesPerStep - 1)),
      rows: numberedRows(Math.max(1, rowsPerStep + extraRows)),
    };
  });

test("every row is used exactly once an epoch, in the order of its permutation", () => {
  fc.assert(
    fc.property(planShapes, (options) => {
      const plan = createTrainingPlan(options);
      assert.equal(plan.totalSteps, options.numEpochs * plan.stepsPerEpoch);
      for (let epoch = 0; epoch < options.numEpochs; epoch++) {
        const used: number[] = [];
        for (let i = 0; i < plan.stepsPerEpoch; i++) {
          const step = epoch * plan.stepsPerEpoch + i;
          const rows: number[] = [];
          for (let group = 0; group < plan.gradientGroups; group++) {
            rows.push(...rowsOf(plan.microBatches(step, group), plan.microBatchSize));
          }
          assert.deepEqual(rows, [...plan.rowIndices(step)]);
          assert.equal(rows.length, plan.rowsIn(step));
          used.push(...rows);
        }
        assert.deepEqual(used, [...permutation(options.seed, epoch, plan.numRows)]);
      }
    }),
    { numRuns: 200 },
  );
});

test("a step's groups are contiguous, never empty, and differ by one micro-batch at most", () => {
  fc.assert(
    fc.property(planShapes, (options) => {
      const plan = createTrainingPlan(options);
      for (let step = 0; step < plan.stepsPerEpoch; step++) {
        const sizes = Array.from(
          { length: plan.gradientGroups },
          (_, group) => plan.microBatches(step, group).length,
        );
        assert.ok(Math.min(...sizes) >= 1);
        assert.ok(Math.max(...sizes) - Math.min(...sizes) <= 1);
        const total = sizes.reduce((sum, size) => sum + size, 0);
        assert.ok(total * plan.microBatchSize <= plan.rowsPerStep);
      }
    }),
    { numRuns: 200 },
  );
});

test("the rows of a step do not depend on the number of groups or on what was asked before", () => {
  fc.assert(
    fc.property(planShapes, fc.infiniteStream(fc.nat()), (options, numbers) => {
      const inOrder = createTrainingPlan({ ...options, gradientGroups: 1 });
      const atRandom = createTrainingPlan(options);
      for (let i = 0; i < 10; i++) {
        const step = (numbers.next().value ?? 0) % atRandom.totalSteps;
        assert.deepEqual(atRandom.rowIndices(step), inOrder.rowIndices(step));
        const fresh = createTrainingPlan(options);
        const group = step % options.gradientGroups;
        assert.deepEqual(atRandom.microBatches(step, group), fresh.microBatches(step, group));
      }
    }),
    { numRuns: 50 },
  );
});

test("the supervised tokens of a step are the targets that its batches hold", () => {
  fc.assert(
    fc.property(planShapes, (options) => {
      const plan = createTrainingPlan(options);
      for (let step = 0; step < plan.stepsPerEpoch; step++) {
        let targets = 0;
        for (let group = 0; group < plan.gradientGroups; group++) {
          for (const batch of plan.microBatches(step, group)) {
            for (const target of targetsOf(batch)) if (target !== ignoredTarget) targets++;
          }
        }
        assert.equal(plan.lossWeight(step), targets);
      }
    }),
  );
});

test("18 rows, micro-batch 2, accumulation 2 give the steps and epochs that transformers logs", () => {
  const options = {
    rows: numberedRows(18),
    seed: 42,
    rowsPerStep: 4,
    microBatchSize: 2,
    gradientGroups: 2,
  };
  const plan = createTrainingPlan({ ...options, numEpochs: 2 });
  assert.equal(plan.stepsPerEpoch, 5);
  assert.equal(plan.totalSteps, 10);
  assert.equal(plan.rowsIn(4), 2);
  // From a trainer_state.json of transformers 5.24: 2/9, 4/9, ..., then the whole epoch.
  assert.deepEqual([1, 2, 5, 7, 10].map(plan.epochAt), [2 / 9, 4 / 9, 1, 1 + 4 / 9, 2]);
  assert.equal(createTrainingPlan({ ...options, numEpochs: 0.5 }).totalSteps, 3);
  assert.equal(createTrainingPlan(options).totalSteps, 15);
});

test("fewer rows than a step make one short step an epoch, as transformers makes it", () => {
  // len(dataloader) // accumulation + remainder, at least 1: one update an epoch for 1 and 5 rows of 8.
  for (const numRows of [1, 5]) {
    const plan = createTrainingPlan({
      ...{ rows: numberedRows(numRows), seed: 42, rowsPerStep: 16, microBatchSize: 4 },
      ...{ gradientGroups: 4, numEpochs: 3 },
    });
    assert.equal(plan.stepsPerEpoch, 1);
    assert.equal(plan.totalSteps, 3);
    assert.equal(plan.rowsIn(2), numRows);
    assert.equal(plan.lossWeight(0), numRows * (sequenceLength - 1));
    assert.deepEqual([0, 1, 2, 3].map(plan.epochAt), [0, 1, 2, 3]);
    for (let group = 0; group < 4; group++) assert.equal(plan.microBatches(0, group).length, 1);
  }
});

test("max_steps overrides the epochs and runs on into further ones", () => {
  const options = {
    rows: numberedRows(5),
    seed: 1,
    rowsPerStep: 2,
    microBatchSize: 1,
    gradientGroups: 1,
    numEpochs: 1,
  };
  const plan = createTrainingPlan({ ...options, maxSteps: 7 });
  assert.equal(plan.totalSteps, 7);
  assert.deepEqual([...plan.rowIndices(6)], [...permutation(1, 2, 5).subarray(0, 2)]);
  assert.throws(() => plan.rowIndices(7), RangeError);
  assert.equal(createTrainingPlan({ ...options, maxSteps: -1 }).totalSteps, 3);
});

test("settings that make no plan are refused with the name of the setting", () => {
  const good = {
    rows: numberedRows(8),
    seed: 0,
    rowsPerStep: 4,
    microBatchSize: 2,
    gradientGroups: 2,
  };
  const refused = (change: object, code: string, words: RegExp): void => {
    assert.throws(
      () => createTrainingPlan({ ...good, ...change }),
      (error) => isLockstepError(error) && error.code === code && words.test(error.message),
    );
  };
  createTrainingPlan(good);
  refused({ rowsPerStep: 3 }, "E_PLAN_INVALID", /global batch size is 3.*multiple of the 2/);
  refused({ microBatchSize: 0 }, "E_PLAN_INVALID", /micro-batch is 0/);
  refused({ gradientGroups: 3 }, "E_PLAN_INVALID", /gradient_groups is 3.*1 to the 2/);
  refused({ numEpochs: 0 }, "E_PLAN_INVALID", /num_train_epochs is 0/);
  refused({ maxSteps: 1.5 }, "E_PLAN_INVALID", /max_steps is 1.5/);
  refused({ rows: numberedRows(0) }, "E_DATASET_TOO_SMALL", /train split holds 0 token/);
});

test("evaluation batches hold every row once, in order, and fill up the last batch", () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 20 }), fc.integer({ min: 1, max: 6 }), (n, size) => {
      const batches = evaluationBatches(numberedRows(n), size);
      assert.equal(batches.length, Math.ceil(n / size));
      assert.deepEqual(
        rowsOf(batches, size),
        Array.from({ length: n }, (_, i) => i),
      );
    }),
  );
});
