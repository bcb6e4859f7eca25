import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { isLockstepError } from "#lib/core/errors/index";
import { ignoredTarget, type Batch } from "#lib/core/batch";
import { permutation } from "#lib/core/random";
import { createTrainingPlan, evaluationBatches, type PackedBlocks } from "#lib/data/index";
import { targetsOf, tokensOf } from "#tests/support/batches";

const sequenceLength = 4;

/** Block b holds tokens 10b+1 .. 10b+4, so that a row tells which block it came from. */
function numberedBlocks(numBlocks: number): PackedBlocks {
  const tokens = new Int32Array(numBlocks * sequenceLength);
  for (let i = 0; i < tokens.length; i++) {
    tokens[i] = 10 * Math.floor(i / sequenceLength) + 1 + (i % sequenceLength);
  }
  return { tokens, numBlocks, sequenceLength, droppedTokens: 0 };
}

/** Blocks of the real rows; asserts the static shape and every row's tokens and targets on the way. */
function blocksOf(batches: readonly Batch[], numRows: number): number[] {
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
    extraBlocks: fc.integer({ min: -15, max: 40 }),
    numEpochs: fc.integer({ min: 1, max: 3 }),
    seed: fc.nat(),
  })
  .map(({ microBatchesPerStep, groupShare, extraBlocks, ...rest }) => {
    const samplesPerStep = rest.microBatchSize * microBatchesPerStep;
    return {
      ...rest,
      samplesPerStep,
      gradientGroups: 1 + Math.floor(groupShare * (microBatchesPerStep - 1)),
      blocks: numberedBlocks(Math.max(1, samplesPerStep + extraBlocks)),
    };
  });

test("every sample is used exactly once an epoch, in the order of its permutation", () => {
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
            rows.push(...blocksOf(plan.microBatches(step, group), plan.microBatchSize));
          }
          assert.deepEqual(rows, [...plan.sampleIndices(step)]);
          assert.equal(rows.length, plan.samplesIn(step));
          used.push(...rows);
        }
        assert.deepEqual(used, [...permutation(options.seed, epoch, plan.numSamples)]);
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
        assert.ok(total * plan.microBatchSize <= plan.samplesPerStep);
      }
    }),
    { numRuns: 200 },
  );
});

test("the samples of a step do not depend on the number of groups or on what was asked before", () => {
  fc.assert(
    fc.property(planShapes, fc.infiniteStream(fc.nat()), (options, numbers) => {
      const inOrder = createTrainingPlan({ ...options, gradientGroups: 1 });
      const atRandom = createTrainingPlan(options);
      for (let i = 0; i < 10; i++) {
        const step = (numbers.next().value ?? 0) % atRandom.totalSteps;
        assert.deepEqual(atRandom.sampleIndices(step), inOrder.sampleIndices(step));
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
    blocks: numberedBlocks(18),
    seed: 42,
    samplesPerStep: 4,
    microBatchSize: 2,
    gradientGroups: 2,
  };
  const plan = createTrainingPlan({ ...options, numEpochs: 2 });
  assert.equal(plan.stepsPerEpoch, 5);
  assert.equal(plan.totalSteps, 10);
  assert.equal(plan.samplesIn(4), 2);
  // From a trainer_state.json of transformers 5.24: 2/9, 4/9, ..., then the whole epoch.
  assert.deepEqual([1, 2, 5, 7, 10].map(plan.epochAt), [2 / 9, 4 / 9, 1, 1 + 4 / 9, 2]);
  assert.equal(createTrainingPlan({ ...options, numEpochs: 0.5 }).totalSteps, 3);
  assert.equal(createTrainingPlan(options).totalSteps, 15);
});

test("fewer rows than a step make one short step an epoch, as transformers makes it", () => {
  // len(dataloader) // accumulation + remainder, at least 1: one update an epoch for 1 and 5 rows of 8.
  for (const numRows of [1, 5]) {
    const plan = createTrainingPlan({
      ...{ blocks: numberedBlocks(numRows), seed: 42, samplesPerStep: 16, microBatchSize: 4 },
      ...{ gradientGroups: 4, numEpochs: 3 },
    });
    assert.equal(plan.stepsPerEpoch, 1);
    assert.equal(plan.totalSteps, 3);
    assert.equal(plan.samplesIn(2), numRows);
    assert.equal(plan.lossWeight(0), numRows * (sequenceLength - 1));
    assert.deepEqual([0, 1, 2, 3].map(plan.epochAt), [0, 1, 2, 3]);
    for (let group = 0; group < 4; group++) assert.equal(plan.microBatches(0, group).length, 1);
  }
});

test("max_steps overrides the epochs and runs on into further ones", () => {
  const options = {
    blocks: numberedBlocks(5),
    seed: 1,
    samplesPerStep: 2,
    microBatchSize: 1,
    gradientGroups: 1,
    numEpochs: 1,
  };
  const plan = createTrainingPlan({ ...options, maxSteps: 7 });
  assert.equal(plan.totalSteps, 7);
  assert.deepEqual([...plan.sampleIndices(6)], [...permutation(1, 2, 5).subarray(0, 2)]);
  assert.throws(() => plan.sampleIndices(7), RangeError);
  assert.equal(createTrainingPlan({ ...options, maxSteps: -1 }).totalSteps, 3);
});

test("settings that make no plan are refused with the name of the setting", () => {
  const good = {
    blocks: numberedBlocks(8),
    seed: 0,
    samplesPerStep: 4,
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
  refused({ samplesPerStep: 3 }, "E_PLAN_INVALID", /global batch size is 3.*multiple of the 2/);
  refused({ microBatchSize: 0 }, "E_PLAN_INVALID", /micro-batch is 0/);
  refused({ gradientGroups: 3 }, "E_PLAN_INVALID", /gradient_groups is 3.*1 to the 2/);
  refused({ numEpochs: 0 }, "E_PLAN_INVALID", /num_train_epochs is 0/);
  refused({ maxSteps: 1.5 }, "E_PLAN_INVALID", /max_steps is 1.5/);
  refused({ blocks: numberedBlocks(0) }, "E_DATASET_TOO_SMALL", /train split holds 0 token/);
});

test("evaluation batches hold every block once, in order, and fill up the last batch", () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 20 }), fc.integer({ min: 1, max: 6 }), (n, size) => {
      const batches = evaluationBatches(numberedBlocks(n), size);
      assert.equal(batches.length, Math.ceil(n / size));
      assert.deepEqual(
        blocksOf(batches, size),
        Array.from({ length: n }, (_, i) => i),
      );
    }),
  );
});
