import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
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
  gradScalerDefaults,
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
      const updates = new StepUpdate(layout, settings, { numUpdates: before });
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
        assert.deepEqual(await run, { learningRate, gradientNorm, notes: [] });
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

interface GradScalerTrace {
  readonly growth_interval: number;
  readonly trace: readonly {
    readonly inf: number;
    readonly scale_before: number;
    readonly scale_after: number;
    readonly stepped: boolean;
  }[];
}

test("scales and skipped steps are those of torch's GradScaler, whoever goes on from a checkpoint", async () => {
  const { growth_interval: growthInterval, trace } = JSON.parse(
    readFileSync("tests/fixtures/golden/gradscaler.json", "utf8"),
  ) as GradScalerTrace;
  const lossScaling = { ...gradScalerDefaults, growthInterval };
  const sum = (step: number): number => {
    const { inf, scale_before } = trace[step] as GradScalerTrace["trace"][number];
    return inf === 1 ? Number.POSITIVE_INFINITY : (3 * scale_before) ** 2;
  };
  const { shards, calls } = scripted((step) => [sum(step)]);
  const scaled = { ...settings, lossScaling };
  let updates = new StepUpdate(layout, scaled);
  let numMade = 0;
  for (const [step, { scale_before, scale_after, stepped }] of trace.entries()) {
    assert.equal(updates.lossScale, scale_before);
    const { gradientNorm, lossScale, learningRate } = await updates.run(shards, { step, loss: 1 });
    assert.equal(lossScale, scale_before);
    // A skipped step leaves the schedule where it is.
    assert.equal(learningRate, settings.learningRateAt(numMade));
    if (stepped) {
      numMade += 1;
      // The norm is unscaled before it is clipped, and what multiplies the gradient does both.
      assert.equal(gradientNorm, 3);
      const gradientScale = clipCoefficient(3, 2) / scale_before;
      const update = { learningRate, updateNumber: numMade, gradientScale };
      assert.deepEqual(calls.pop(), ["apply", step, update]);
    } else assert.deepEqual(calls.pop(), ["discard", step]);
    assert.deepEqual([updates.lossScale, updates.numUpdates], [scale_after, numMade]);
    if (step % 2 === 0) {
      const { numUpdates, lossScaler } = updates;
      updates = new StepUpdate(layout, scaled, { numUpdates, lossScaler });
    }
  }
});

test("a gradient that no loss scale makes finite ends the run, after a warning", async () => {
  const { shards } = scripted(() => [Number.NaN]);
  const updates = new StepUpdate(layout, { ...settings, lossScaling: gradScalerDefaults });
  const warnings: string[] = [];
  const scales: number[] = [];
  let failure: unknown;
  for (let step = 0; failure === undefined && step < 100; step++) {
    scales.push(updates.lossScale);
    const outcome = await updates.run(shards, { step, loss: 1 }).catch((error: unknown) => {
      failure = error;
      return { notes: [] };
    });
    warnings.push(...outcome.notes);
  }
  assert.ok(isLockstepError(failure) && failure.code === "E_NON_FINITE_GRADIENT");
  assert.match(failure.message, /step 19 .* like those of the 18 steps before it/);
  assert.deepEqual(
    scales,
    Array.from({ length: 19 }, (_, step) => 2 ** (16 - step)),
  );
  assert.equal(warnings.length, 1);
  assert.match(warnings[0] ?? "", /the loss scale falls to 0\.5/);
});

test("an infinite norm is skipped like one that is no number", async () => {
  const sums = [Number.POSITIVE_INFINITY, Number.NaN, Number.NaN];
  const { shards, calls } = scripted((step) => [1, sums[step] as number]);
  const updates = new StepUpdate(layout, settings);
  for (const step of [0, 1]) {
    const { gradientNorm } = await updates.run(shards, { step, loss: 1 });
    assert.ok(!Number.isFinite(gradientNorm));
  }
  await assert.rejects(
    updates.run(shards, { step: 2, loss: 1 }),
    /step 3 .* like those of the 2 steps before it/,
  );
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
  const openings = [{ updateNumber: 3, text: "the second opens" }];
  const updates = new StepUpdate(later, { ...settings, openings });
  const norms: number[] = [];
  const notes: string[][] = [];
  for (const step of [0, 1, 2, 3]) {
    const made = await updates.run(shards, { step, loss: 1 });
    norms.push(made.gradientNorm);
    notes.push([...made.notes]);
  }
  assert.deepEqual(norms, [3, 3, 5, 5]);
  assert.deepEqual(notes, [[], [], ["the second opens"], []]);
});
