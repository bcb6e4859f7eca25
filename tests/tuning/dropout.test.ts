/** Dropout in the training engine: transformers' places and numbers, and the same masks whoever computes. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type * as tf from "@tensorflow/tfjs-core";
import type { BatchCoordinates, DropoutRates } from "#lib/core/dropout";
import type { WorkerJob } from "#lib/core/job";
import { packageRoot } from "#lib/core/paths";
import { neededNodes } from "#lib/graph/builder";
import { randomBitsOp } from "#lib/graph/random-bits";
import { graphTensor } from "#lib/graph/tracing-backend";
import { createModel } from "#lib/models/index";
import { dropped } from "#lib/models/layers";
import { passDropout } from "#lib/tuning/dropout";
import type { HeadedModel } from "#lib/tuning/objectives/index";
import createEngine from "#lib/tuning/engine";
import { buildTrainingPrograms } from "#lib/tuning/programs";
import { assertClose } from "#tests/support/compare";
import { compileFunction } from "#tests/support/compiled-function";
import { assertAsExpected, compute, type DropoutCase } from "#tests/support/dropout-cases";
import { trainedCase } from "#tests/support/objective-cases";
import { floatArg, intArg } from "#tests/support/kernel-case";
import { readLoraFixture } from "#tests/support/lora-fixtures";

/** What transformers and peft compute with our masks: tests/reference/make_dropout_fixture.py. */
const { seed, coordinates, models, adapters } = JSON.parse(
  readFileSync(join(packageRoot, "tests/fixtures/dropout.json"), "utf8"),
) as {
  readonly seed: number;
  readonly coordinates: BatchCoordinates;
  readonly models: Readonly<Record<string, DropoutCase>>;
  readonly adapters: Readonly<Record<string, DropoutCase>>;
};

for (const [name, expected] of Object.entries(models)) {
  test(`${name}: with the same masks, loss and gradients are those of transformers in training`, async () => {
    const { job, wireBytes, batch } = await trainedCase(name, "fp32");
    const dropping = { ...job, dropout: { seed, rates: expected.rates } };
    assertAsExpected(await compute(dropping, wireBytes, { ...batch, coordinates }), expected);
    assert.equal(placesOf(dropping), expected.places);
  });
}

for (const [name, expected] of Object.entries(adapters)) {
  test(`${name}: so are those of an adapter in peft`, async () => {
    const { job, trained, frozen, batch } = await readLoraFixture(name, "fp32");
    const dropping = { ...job, dropout: { seed, rates: expected.rates } };
    const computed = await compute(dropping, trained, { ...batch, coordinates }, frozen);
    assertAsExpected(computed, expected);
  });
}

function programsOf(job: WorkerJob) {
  const programs = buildTrainingPrograms(createModel(job.modelConfig) as HeadedModel, job);
  const live = (name: "only" | "evaluate") => {
    const { fetches } = name === "only" ? programs.gradients.only : programs.evaluate;
    const nodes = [...neededNodes(Object.values(fetches).map(({ node }) => node))];
    return nodes.filter(({ op }) => op === randomBitsOp);
  };
  return { programs, live };
}

/** Places of the forward pass that draw: the keys of their bits differ. */
const placesOf = (job: WorkerJob): number =>
  new Set(
    programsOf(job)
      .live("only")
      .map(({ inputs }) => inputs[1]?.node.name),
  ).size;

const allKinds: DropoutRates = { embeddings: 0.1, attention: 0.1, residual: 0.1, classifier: 0.1 };

test("a job that drops nothing has no random number in its graph, nor has any evaluation", async () => {
  const { job } = await trainedCase("gpt2", "bf16");
  const plain = programsOf(job);
  assert.equal(plain.live("only").length, 0);
  assert.ok(!("coordinates" in plain.programs.gradients.only.feeds));
  const dropping = programsOf({ ...job, dropout: { seed, rates: allKinds } });
  assert.ok(dropping.live("only").length > 0);
  assert.equal(dropping.live("evaluate").length, 0);
});

for (const [name, precision] of [
  ["gpt2", "fp32"],
  ["gpt2", "bf16"],
  ["bert-seqcls", "bf16"],
  ["phi3-partial", "bf16"],
] as const) {
  test(`${name}, ${precision}: coordinates decide the masks, recomputed activations have the same`, async () => {
    const { job, wireBytes, batch } = await trainedCase(name, precision);
    const dropping = { ...job, dropout: { seed, rates: allKinds } };
    const lossAt = async (change: Partial<BatchCoordinates>, of: WorkerJob = dropping) => {
      const at = { step: 5, group: 1, index: 0, ...change };
      const computed = await compute(of, wireBytes, { ...batch, coordinates: at });
      return { loss: computed.loss, bytes: Buffer.from(computed.gradients) };
    };
    const kept = await lossAt({});
    const again = await lossAt({}, { ...dropping, gradientCheckpointing: true });
    assert.equal(again.loss, kept.loss);
    assert.ok(again.bytes.equals(kept.bytes), "recomputed");
    assert.ok((await lossAt({})).bytes.equals(kept.bytes), "computed again");
    for (const change of [{ step: 6 }, { group: 0 }, { index: 1 }]) {
      assert.notEqual((await lossAt(change)).loss, kept.loss, JSON.stringify(change));
    }
  });
}

test("over 2,000 steps the mean of each kind's dropout is the value itself", () => {
  const rates = { embeddings: 0.1, residual: 0.2, classifier: 0.3, adapters: 0.05 } as const;
  const kinds = Object.keys(rates) as (keyof typeof rates)[];
  const size = 64;
  const x = floatArg([size], 1);
  const run = compileFunction((...args) => {
    const [values, c] = args as [tf.Tensor, tf.Tensor];
    const pass = passDropout({ seed, rates }, { coordinates: graphTensor(c), lengths: undefined });
    return kinds.map((kind) => dropped(pass, kind, values));
  });
  const sums = kinds.map(() => new Float64Array(size));
  const numSteps = 2_000;
  for (let step = 0; step < numSteps; step++) {
    run(x, intArg([step, 0, 0], [3])).forEach(({ data }, kind) => {
      data.forEach((value, i) => {
        const sum = sums[kind] as Float64Array;
        sum[i] = (sum[i] as number) + value / (x.data[i] as number);
      });
    });
  }
  kinds.forEach((kind, k) => {
    const mean = (sums[k] as Float64Array).reduce((a, b) => a + b, 0) / (numSteps * size);
    const rate = rates[kind];
    const error = Math.sqrt(rate / (1 - rate) / (numSteps * size));
    assert.ok(Math.abs(mean - 1) < 3 * error, `${kind}: mean ${mean}, standard error ${error}`);
  });
});

test("a gradient agrees with the central difference of losses under the same masks", async () => {
  const { job, wireBytes, batch } = await trainedCase("gpt2", "fp32");
  const dropping = { ...job, dropout: { seed, rates: allKinds } };
  const engine = await createEngine(dropping);
  const at = { ...batch, coordinates };
  engine.loadParameters(wireBytes);
  const gradients = new Uint8Array(wireBytes.byteLength);
  engine.accumulate(at, 1, true, gradients);
  const gradient = new Float32Array(gradients.buffer);
  const values = new Float32Array(wireBytes.slice().buffer);
  const norm = Math.sqrt(gradient.reduce((sum, value) => sum + value ** 2, 0));
  const lossAt = (distance: number): number => {
    const moved = values.map((value, i) => value + (distance * (gradient[i] as number)) / norm);
    engine.loadParameters(new Uint8Array(moved.buffer));
    return engine.accumulate(at, 1, true, new Uint8Array(wireBytes.byteLength)).lossSum;
  };
  const slope = (lossAt(2e-3) - lossAt(-2e-3)) / 4e-3;
  assert.ok(Math.abs(slope / norm - 1) < 1e-2, `${slope} along a gradient of norm ${norm}`);
  engine.close();
});

test("no mask waits for backward: with recomputed activations a layer's bits are drawn again", async () => {
  const { job } = await trainedCase("gpt2", "bf16");
  const rates = { residual: 0.1 };
  const count = (gradientCheckpointing: boolean): number =>
    programsOf({ ...job, gradientCheckpointing, dropout: { seed, rates } }).live("only").length;
  // Two places a layer in two layers, forward and backward; then those behind attention once more.
  assert.equal(count(false), 8);
  assert.equal(count(true), 10);
});

test("a step that XLA compiles as one function drops the same values", async () => {
  const { job, wireBytes, batch } = await trainedCase("gpt2", "fp32");
  const dropping = { ...job, dropout: { seed, rates: allKinds } };
  const expected = await compute(dropping, wireBytes, { ...batch, coordinates });
  for (const gradientCheckpointing of [false, true]) {
    const xlaJob = { ...dropping, xla: true, gradientCheckpointing };
    const actual = await compute(xlaJob, wireBytes, { ...batch, coordinates });
    assert.ok(Math.abs(actual.loss / expected.loss - 1) < 1e-6, `${actual.loss}`);
    assertClose(
      new Float32Array(actual.gradients.buffer),
      new Float32Array(expected.gradients.buffer),
      1e-5,
      `gradients, recomputed: ${gradientCheckpointing}`,
    );
  }
});

test("a batch without coordinates is refused where values are dropped", async () => {
  const { job, wireBytes, batch } = await trainedCase("gpt2", "fp32");
  await assert.rejects(
    compute({ ...job, dropout: { seed, rates: allKinds } }, wireBytes, batch),
    RangeError,
  );
});
