import assert from "node:assert/strict";
import { test } from "node:test";
import type { WorkerJob } from "#lib/core/job";
import createEngine from "#lib/tuning/engine";
import { relativeError } from "#tests/support/compare";
import { batchOf, readSlot, tinyLlamaCase, tinyLlamaJob } from "#tests/support/tiny-llama";

const batch = batchOf(tinyLlamaCase);
const embedding = "model.embed_tokens.weight";

/** Loss and gradient of a group of two equal micro-batches. */
async function gradientOf(job: WorkerJob, parameters: Uint8Array) {
  const engine = await createEngine(job);
  try {
    engine.loadParameters(parameters);
    const gradients = new Uint8Array(parameters.byteLength);
    engine.accumulate(batch, 0.01, true);
    const { lossSum } = engine.accumulate(batch, 0.01, false, gradients);
    return { lossSum, gradients };
  } finally {
    engine.close();
  }
}

for (const [precision, tolerance] of [
  ["fp32", 1e-5],
  ["bf16", 0.05],
  ["fp16", 0.01],
] as const) {
  test(`the ${precision} step as one XLA function gives the step's loss and gradients, in equal bits twice`, async () => {
    const { job, wireBytes } = await tinyLlamaJob(precision, batch.numRows);
    const xlaJob = { ...job, xla: true };
    const expected = await gradientOf(job, wireBytes);
    const actual = await gradientOf(xlaJob, wireBytes);
    assert.ok(Math.abs(actual.lossSum / expected.lossSum - 1) < tolerance / 10);
    for (const { name } of job.layout.tensors) {
      const error = relativeError(
        readSlot(job.layout, name, actual.gradients),
        readSlot(job.layout, name, expected.gradients),
      );
      assert.ok(error < tolerance, `${name}: ${error}`);
    }
    assert.deepEqual(await gradientOf(xlaJob, wireBytes), actual);
    const recomputed = await gradientOf({ ...xlaJob, gradientCheckpointing: true }, wireBytes);
    assert.ok(Math.abs(recomputed.lossSum / expected.lossSum - 1) < tolerance / 10);
    assert.ok(
      relativeError(
        readSlot(job.layout, embedding, recomputed.gradients),
        readSlot(job.layout, embedding, expected.gradients),
      ) < tolerance,
    );
  });
}
