/** NEFTune in the training engine: transformers' places and magnitudes, and the same noise whoever computes. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import * as tf from "@tensorflow/tfjs-core";
import { type Batch, inputFields, lengthField } from "#lib/core/batch";
import type { BatchCoordinates } from "#lib/core/dropout";
import type { WorkerJob } from "#lib/core/job";
import { packageRoot } from "#lib/core/paths";
import { addNoise, noiseValues } from "#lib/ops/index";
import { compileFunction } from "#tests/support/compiled-function";
import { assertAsExpected, compute, type DropoutCase } from "#tests/support/dropout-cases";
import { intArg, floatArg, testKernels } from "#tests/support/kernel-case";
import { readLoraFixture } from "#tests/support/lora-fixtures";
import { trainedCase } from "#tests/support/objective-cases";

/** What transformers and peft compute with our noise: tests/reference/make_noise_fixture.py. */
const { seed, coordinates, noiseAlpha, models, adapters } = JSON.parse(
  readFileSync(join(packageRoot, "tests/fixtures/noise.json"), "utf8"),
) as {
  readonly seed: number;
  readonly coordinates: BatchCoordinates;
  readonly noiseAlpha: number;
  readonly models: Readonly<Record<string, DropoutCase>>;
  readonly adapters: Readonly<Record<string, DropoutCase>>;
};

/** The job with noise, and its batch with the lengths that noise asks for: tokens of the segment 1. */
function noisy<J extends WorkerJob>(job: J, batch: Batch, rates: DropoutCase["rates"] = {}) {
  const { numRows, fields } = batch;
  const { segments } = fields;
  const lengths = Int32Array.from({ length: numRows }, (_, row) => {
    const own = segments?.slice(row * job.sequenceLength, (row + 1) * job.sequenceLength);
    return own?.filter((segment) => segment > 0).length ?? job.sequenceLength;
  });
  return {
    job: {
      ...job,
      dropout: { seed, rates, noiseAlpha },
      batchFields: [...job.batchFields, lengthField],
    },
    batch: { numRows, fields: { ...fields, lengths }, coordinates },
  };
}

for (const [name, expected] of Object.entries(models)) {
  test(`${name}: with the same noise, loss and gradients are those of transformers in training`, async () => {
    const trained = await trainedCase(name, "fp32");
    const { job, batch } = noisy(trained.job, trained.batch, expected.rates);
    assertAsExpected(await compute(job, trained.wireBytes, batch), expected);
  });
}

for (const [name, expected] of Object.entries(adapters)) {
  test(`${name}: so are those of an adapter in peft`, async () => {
    const fixture = await readLoraFixture(name, "fp32");
    const { job, batch } = noisy(fixture.job, fixture.batch);
    assertAsExpected(await compute(job, fixture.trained, batch, fixture.frozen), expected);
  });
}

const at = intArg([7, 3, 1], [3]);
const sourceAt = (c: tf.Tensor) => ({ coordinates: c, seed, site: 2 });

testKernels([
  {
    name: "AddNoise",
    inputs: [[3, 5]],
    constants: [at],
    fn: (x, c) => addNoise(x as tf.Tensor, tf.scalar(0.7), sourceAt(c as tf.Tensor)),
  },
]);

test("noise fills the interval evenly: its bounds, mean, variance and correlation", () => {
  const [numRows, width] = [512, 64];
  const x = { data: new Float32Array(numRows * width), shape: [numRows, width] };
  const run = compileFunction((...args) => [
    addNoise(args[0] as tf.Tensor, tf.scalar(2), sourceAt(args[1] as tf.Tensor)),
  ]);
  const values = Float32Array.from(run(x, at)[0]?.data ?? []);
  assert.deepEqual(run(x, at)[0]?.data, values, "the same coordinates give the same noise");
  assert.notDeepEqual(run(x, intArg([7, 3, 2], [3]))[0]?.data, values);
  const n = values.length;
  assert.equal(n, numRows * width);
  const mean = (of: (i: number) => number): number =>
    values.reduce((sum, _, i) => sum + of(i), 0) / n;
  const unit = (i: number): number => (values[i % n] as number) / 2;
  assert.ok(values.every((value) => Math.abs(value) < 2));
  assert.ok(values.some((value) => value > 1.999) && values.some((value) => value < -1.999));
  // Of a uniform variable: variance 1/3, and 4/45 of its square.
  const error = (variance: number): number => 4 * Math.sqrt(variance / n);
  assert.ok(Math.abs(mean(unit)) < error(1 / 3), `mean ${mean(unit)}`);
  const variance = mean((i) => unit(i) ** 2);
  assert.ok(Math.abs(variance - 1 / 3) < error(4 / 45), `variance ${variance}`);
  const neighbours = mean((i) => unit(i) * unit(i + 1));
  assert.ok(Math.abs(neighbours) < error(1 / 9), `correlation ${neighbours}`);
});

test("the noise of a traced pass, read back, is what the eager one draws", () => {
  const x = floatArg([4, 6], 3);
  const traced = compileFunction((...args) => [
    addNoise(args[0] as tf.Tensor, tf.scalar(0.25), sourceAt(args[1] as tf.Tensor)),
  ])(x, at)[0]?.data;
  void tf.setBackend("cpu");
  const noise = noiseValues(sourceAt(tf.tensor1d([7, 3, 1], "int32")), 24);
  traced?.forEach((value, i) => {
    const expected = (x.data[i] as number) + 0.25 * (noise[i] as number);
    assert.ok(Math.abs(value - expected) < 1e-7, `${value} and ${expected}`);
  });
});

for (const precision of ["bf16", "fp16"] as const) {
  test(`${precision}: coordinates decide the noise, recomputed activations have the same`, async () => {
    const trained = await trainedCase("llama-gqa-untied", precision);
    const { job, batch } = noisy(trained.job, trained.batch, { attention: 0.1 });
    const computedAt = async (change: Partial<BatchCoordinates>, of: WorkerJob = job) => {
      const computed = await compute(of, trained.wireBytes, {
        ...batch,
        coordinates: { ...coordinates, ...change },
      });
      return { ...computed, bytes: Buffer.from(computed.gradients) };
    };
    const kept = await computedAt({});
    assert.ok(
      kept.bytes.equals((await computedAt({}, { ...job, gradientCheckpointing: true })).bytes),
    );
    assert.ok(kept.bytes.equals((await computedAt({})).bytes));
    for (const change of [{ step: 9 }, { group: 0 }, { index: 1 }]) {
      assert.notEqual((await computedAt(change)).loss, kept.loss, JSON.stringify(change));
    }
    // An evaluation is that of a job without noise.
    const { evaluationLoss } = await compute(trained.job, trained.wireBytes, {
      ...trained.batch,
      coordinates,
    });
    assert.equal(kept.evaluationLoss, evaluationLoss);
  });
}

test("the longest row of a micro-batch decides the magnitude, and rows of padding alone are no fault", async () => {
  const trained = await trainedCase("gpt2", "fp32");
  const { job, batch } = noisy(trained.job, trained.batch);
  const lossOf = async (lengths: readonly number[]): Promise<number> => {
    const fields = { ...batch.fields, lengths: Int32Array.from(lengths) };
    return (await compute(job, trained.wireBytes, { ...batch, fields })).loss;
  };
  const loss = await lossOf([17, 12, 8]);
  assert.equal(await lossOf([3, 17, 17]), loss);
  assert.notEqual(await lossOf([16, 12, 8]), loss);
  assert.ok(Number.isFinite(await lossOf([0, 0, 0])));
  assert.ok(inputFields().every(({ name }) => name !== lengthField.name));
});
