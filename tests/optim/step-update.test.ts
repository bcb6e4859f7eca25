import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { isLockstepError } from "#lib/core/errors/index";
import {
  blockElements,
  buildParameterLayout,
  type ParameterLayout,
} from "#lib/core/parameter-layout";
import {
  clipCoefficient,
  maxSkippedStepsInARow,
  StepUpdate,
  type Update,
  type UpdatedShards,
} from "#lib/optim/index";

const layout = buildParameterLayout([{ name: "w", shape: [1, 2 * blockElements] }], "float32");
const settings = {
  optimizer: { name: "adamw", settings: {} },
  learningRateAt: (updates: number): number => 1 / (1 + updates),
  maxGradNorm: 2,
};

/** Shards that have these sums of squares, and note what is asked of them. */
function scripted(sumsOf: (step: number) => readonly number[]) {
  const calls: (["apply", number, Update] | ["discard", number])[] = [];
  const shards: UpdatedShards = {
    reduce: async (step) => sumsOf(step),
    measure: async () => [],
    apply: async (step, update) => {
      calls.push(["apply", step, update]);
    },
    discard: async (step) => {
      calls.push(["discard", step]);
    },
  };
  return { shards, calls };
}

test("updates are counted where they are made: rate and bias correction skip what was skipped", async () => {
  const norms = fc.array(
    fc.oneof(fc.double({ min: 0, max: 1e3, noNaN: true }), fc.constant(Number.NaN)),
  );
  await fc.assert(
    fc.asyncProperty(norms, fc.nat(1_000), async (list, before) => {
      const { shards, calls } = scripted((step) => [(list[step] as number) ** 2]);
      const updates = new StepUpdate(layout, settings, before);
      let numMade = 0;
      let inARow = 0;
      for (const [step, norm] of list.entries()) {
        inARow = Number.isFinite(norm) ? 0 : inARow + 1;
        const learningRate = settings.learningRateAt(before + numMade);
        const run = updates.run(shards, { step, loss: 3 });
        if (inARow === maxSkippedStepsInARow) {
          await assert.rejects(
            run,
            (error) =>
              isLockstepError(error) &&
              error.code === "E_NON_FINITE_GRADIENT" &&
              error.message.includes(`step ${step + 1} `),
          );
          assert.deepEqual(calls.pop(), ["discard", step]);
          return;
        }
        const gradientNorm = Math.sqrt(norm ** 2);
        assert.deepEqual(await run, { learningRate, gradientNorm });
        if (inARow > 0) assert.deepEqual(calls.pop(), ["discard", step]);
        else {
          numMade += 1;
          const update = {
            ...{ learningRate, updateNumber: before + numMade },
            gradientScale: clipCoefficient(gradientNorm, 2),
          };
          assert.deepEqual(calls.pop(), ["apply", step, update]);
        }
        assert.equal(updates.numUpdates, before + numMade);
        assert.deepEqual(calls, []);
      }
    }),
  );
});

test("an infinite norm is skipped like one that is no number", async () => {
  const sums = [Number.POSITIVE_INFINITY, Number.NaN, Number.NaN];
  const { shards, calls } = scripted((step) => [1, sums[step] as number]);
  const updates = new StepUpdate(layout, settings);
  for (const step of [0, 1]) {
    const { gradientNorm } = await updates.run(shards, { step, loss: 1 });
    assert.ok(!Number.isFinite(gradientNorm));
  }
  await assert.rejects(updates.run(shards, { step: 2, loss: 1 }), /step 3 .* 3th step in a row/);
  assert.deepEqual(
    calls.map(([call]) => call),
    ["discard", "discard", "discard"],
  );
  assert.equal(updates.numUpdates, 0);
});

test("a region whose first update is a later one is not in the norm until then", async () => {
  const regions = [1, 3].map((firstUpdate, i) => ({
    ...{ start: i * blockElements, end: (i + 1) * blockElements, dtype: "float32" as const },
    ...{ decays: true, rateMultiplier: 1, firstUpdate },
  }));
  const later: ParameterLayout = { ...layout, regions };
  const { shards } = scripted(() => [9, 16]);
  const updates = new StepUpdate(later, settings);
  const norms: number[] = [];
  for (const step of [0, 1, 2]) {
    norms.push((await updates.run(shards, { step, loss: 1 })).gradientNorm);
  }
  assert.deepEqual(norms, [3, 3, 5]);
});
