/** Class weights, smoothed labels, z-loss and weights of rows and tokens in the training engine: losses and gradients of torch and transformers. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { openSafetensors } from "#lib/checkpoint/index";
import type { ObjectiveSettings } from "#lib/core/job";
import { packageRoot } from "#lib/core/paths";
import createEngine from "#lib/tuning/engine";
import { relativeError } from "#tests/support/compare";
import { readSlot } from "#tests/support/tiny-llama";
import { assertLossAndGradients, objectiveCase } from "#tests/support/objective-cases";

const directory = join(packageRoot, "tests/fixtures/objectives");
const { cases } = JSON.parse(readFileSync(join(directory, "cases.json"), "utf8")) as {
  readonly cases: Readonly<
    Record<
      string,
      {
        readonly model: string;
        readonly kind: string;
        /** Of each row: of its labels, or one. */
        readonly weights?: readonly (number | readonly number[])[];
        readonly weightsPerRow?: 1 | "token";
      } & ObjectiveSettings
    >
  >;
};

/** As a batch has them: those of tokens stand one position before, as targets do. */
const batchWeights = (weights: readonly (number | readonly number[])[]): Float32Array =>
  Float32Array.from(
    weights.flatMap((row) => (typeof row === "number" ? [row] : [...row.slice(1), 0])),
  );

for (const [name, { model, kind, weights, weightsPerRow: _, ...settings }] of Object.entries(
  cases,
)) {
  test(`${name}: the loss of ${model} and its gradients are those of torch`, async () => {
    const weighted = weights === undefined ? {} : { isWeighted: true };
    const { batch: unweighted, ...made } = await objectiveCase(model, kind, {
      settings,
      ...weighted,
    });
    const { fields } = unweighted;
    const batch =
      weights === undefined
        ? unweighted
        : { ...unweighted, fields: { ...fields, weights: batchWeights(weights) } };
    const trained = { ...made, batch };
    const expected = await openSafetensors(join(directory, `${name}.safetensors`));
    const engine = await createEngine(trained.job);
    try {
      const { wireBytes } = trained;
      engine.loadParameters(wireBytes);
      const { weight } = engine.evaluate(batch);
      const [loss = 0] = await expected.readFloat32("loss");
      const sum = await assertLossAndGradients(engine, trained, {
        ...{ weight, loss },
        gradientOf: (tensor) => expected.readFloat32(`grad.${tensor}`),
      });
      // Training and evaluation have one loss, but for the z-loss.
      const evaluated = engine.evaluate(batch).lossSum;
      if ("zLossWeight" in settings) {
        const { zLossWeight: _, ...others } = settings;
        const plain = await createEngine(
          (await objectiveCase(model, kind, { settings: others, ...weighted })).job,
        );
        plain.loadParameters(wireBytes);
        assert.equal(evaluated, plain.evaluate(batch).lossSum);
        assert.ok(evaluated < 0.99 * sum.lossSum);
        plain.close();
      } else assert.ok(Math.abs(evaluated / sum.lossSum - 1) < 1e-6);
    } finally {
      engine.close();
      await expected.close();
    }
  });
}

// A z-loss and weights in types whose logits do not hold their gradient, with a loss scale; in one XLA function too.
for (const [precision, changes, tolerance] of [
  ["fp32", { xla: true }, 1e-5],
  ["bf16", { gradientCheckpointing: true }, 0.05],
  ["fp16", {}, 0.01],
  ["fp16", { xla: true, gradientCheckpointing: true }, 0.01],
] as const) {
  test(`${precision} ${JSON.stringify(changes)}: gradients of weighted tokens with a z-loss are near torch's`, async () => {
    const name = "tokens-weighted-gemma2";
    const {
      model,
      kind,
      weights = [],
      weightsPerRow: _,
      ...settings
    } = cases[name] ?? assert.fail();
    const { job, batch, wireBytes } = await objectiveCase(
      model,
      kind,
      { settings, isWeighted: true },
      precision,
    );
    const fields = { ...batch.fields, weights: batchWeights(weights) };
    const expected = await openSafetensors(join(directory, `${name}.safetensors`));
    const engine = await createEngine({ ...job, ...changes });
    try {
      engine.loadParameters(wireBytes);
      const gradients = new Uint8Array(wireBytes.byteLength);
      const { weight } = engine.evaluate({ ...batch, fields });
      const scale = precision === "fp16" ? 2 ** 12 : 1;
      engine.accumulate({ ...batch, fields }, scale / weight, true, gradients);
      for (const { name: tensor } of job.layout.tensors) {
        const found = readSlot(job.layout, tensor, gradients).map((value) => value / scale);
        const error = relativeError(found, await expected.readFloat32(`grad.${tensor}`));
        assert.ok(error < tolerance, `${tensor}: ${error}`);
      }
    } finally {
      engine.close();
      await expected.close();
    }
  });
}
