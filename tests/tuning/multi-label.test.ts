/** The training engine on classifiers of several labels: loss and gradients of transformers. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { openSafetensors } from "#lib/checkpoint/index";
import { type Batch, ignoredTarget } from "#lib/core/batch";
import createEngine from "#lib/tuning/engine";
import { assertClose } from "#tests/support/compare";
import { modelFixtureDirectory } from "#tests/support/model-fixtures";
import { assertLossAndGradients, objectiveCase } from "#tests/support/objective-cases";

const jobOf = (name: string) => objectiveCase(name, "multi_label_classification");

for (const name of ["roberta-multi", "distilbert-seqcls-multilabel", "llama-seqcls-multi"]) {
  test(`${name}: loss, gradients and predictions are those of transformers`, async () => {
    const trained = await jobOf(name);
    const engine = await createEngine(trained.job);
    const expected = await openSafetensors(
      join(modelFixtureDirectory(name), "expected.safetensors"),
    );
    try {
      engine.loadParameters(trained.wireBytes);
      await assertLossAndGradients(engine, trained, {
        ...{ weight: trained.reference.labels.length, loss: trained.reference.loss },
        gradientOf: (tensor) => expected.readFloat32(`grad.${tensor}`),
      });
      const logits = await expected.readFloat32("logits");
      const { outputs } = engine.evaluate(trained.batch);
      assert.deepEqual(
        [...(outputs ?? [])],
        Array.from(logits, (logit) => (logit > 0 ? 1 : 0)),
      );
    } finally {
      engine.close();
      await expected.close();
    }
  });
}

test("a row of padding counts neither in the loss nor in the gradient", async () => {
  const { job, batch, wireBytes } = await jobOf("roberta-multi");
  const engine = await createEngine(job);
  engine.loadParameters(wireBytes);
  const width = job.objective.numLabels ?? 0;
  const labels = batch.fields["labels"] as Float32Array;
  const without = (row: number): Batch => ({
    ...batch,
    fields: {
      ...batch.fields,
      labels: labels.map((label, i) => (Math.floor(i / width) === row ? ignoredTarget : label)),
    },
  });
  const gradientOf = (...batches: readonly Batch[]) => {
    const gradients = new Uint8Array(wireBytes.byteLength);
    const sums = batches.map((each, i) =>
      engine.accumulate(each, 1, i === 0, i === batches.length - 1 ? gradients : undefined),
    );
    const lossSum = sums.reduce((total, part) => total + part.lossSum, 0);
    const weight = sums.reduce((total, part) => total + part.weight, 0);
    return { lossSum, weight, gradients: new Float32Array(gradients.buffer) };
  };
  // Each of the three rows is left out once: twice the whole.
  const parts = gradientOf(without(0), without(1), without(2));
  const twice = gradientOf(batch, batch);
  assert.deepEqual([parts.weight, twice.weight], [6 * width, 6 * width]);
  assert.ok(Math.abs(parts.lossSum / twice.lossSum - 1) < 1e-6);
  assertClose(parts.gradients, twice.gradients, 1e-5, "gradient");
  engine.close();
});
