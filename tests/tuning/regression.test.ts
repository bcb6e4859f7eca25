/** The training engine on regressions: loss and gradients of transformers. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { openSafetensors } from "#lib/checkpoint/index";
import { type Batch, ignoredTarget, integerField } from "#lib/core/batch";
import createEngine from "#lib/tuning/engine";
import { assertClose } from "#tests/support/compare";
import { modelFixtureDirectory } from "#tests/support/model-fixtures";
import { assertLossAndGradients, objectiveCase } from "#tests/support/objective-cases";

for (const [name, numOutputs] of [
  ["bert-regression", 2],
  ["roberta-seqcls-regression", 2],
  ["mistral-seqcls-regression", 1],
] as const) {
  test(`${name}: loss, gradients and numbers are those of transformers`, async () => {
    const trained = await objectiveCase(name, "regression");
    assert.equal(trained.job.objective.numLabels, numOutputs);
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
      const { outputs = new Float32Array(0) } = engine.evaluate(trained.batch);
      assert.ok(outputs instanceof Float32Array);
      assertClose(outputs, await expected.readFloat32("logits"), 1e-5, "outputs");
    } finally {
      engine.close();
      await expected.close();
    }
  });
}

test("a row of padding counts nothing, and a number of -100 does", async () => {
  const { job, batch, wireBytes } = await objectiveCase("bert-regression", "regression");
  const engine = await createEngine(job);
  engine.loadParameters(wireBytes);
  const numbers = batch.fields["numbers"] as Float32Array;
  const counted = integerField(batch, "counted");
  const padded = (row: number): Batch => ({
    ...batch,
    fields: {
      ...batch.fields,
      numbers: numbers.map((value, i) => (Math.floor(i / 2) === row ? ignoredTarget : value)),
      counted: counted.map((value, i) => (i === row ? ignoredTarget : value)),
    },
  });
  const whole = engine.evaluate(batch);
  const parts = [0, 1, 2].map((row) => engine.evaluate(padded(row)));
  assert.deepEqual(
    parts.map(({ weight }) => weight),
    [4, 4, 4],
  );
  const sum = parts.reduce((total, { lossSum }) => total + lossSum, 0);
  assert.ok(Math.abs(sum / whole.lossSum / 2 - 1) < 1e-6);
  const cold = { ...batch, fields: { ...batch.fields, numbers: numbers.map(() => ignoredTarget) } };
  const { weight, lossSum } = engine.evaluate(cold);
  assert.ok(weight === 6 && lossSum > 6 * 90 ** 2, `${lossSum} of ${weight}`);
  engine.close();
});
