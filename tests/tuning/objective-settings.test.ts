/** Class weights and smoothed labels in the training engine: losses and gradients of torch and transformers. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { openSafetensors } from "#lib/checkpoint/index";
import type { ObjectiveSettings } from "#lib/core/job";
import { packageRoot } from "#lib/core/paths";
import createEngine from "#lib/tuning/engine";
import { assertClose } from "#tests/support/compare";
import { objectiveCase } from "#tests/support/objective-cases";
import { readSlot } from "#tests/support/tiny-llama";

const directory = join(packageRoot, "tests/fixtures/objectives");
const { cases } = JSON.parse(readFileSync(join(directory, "cases.json"), "utf8")) as {
  readonly cases: Readonly<
    Record<string, { readonly model: string; readonly kind: string } & ObjectiveSettings>
  >;
};

for (const [name, { model, kind, ...settings }] of Object.entries(cases)) {
  test(`${name}: the loss of ${model} and its gradients are those of torch`, async () => {
    const { job, batch, wireBytes } = await objectiveCase(model, kind, { settings });
    const expected = await openSafetensors(join(directory, `${name}.safetensors`));
    const engine = await createEngine(job);
    try {
      engine.loadParameters(wireBytes);
      const { weight } = engine.evaluate(batch);
      const gradients = new Uint8Array(wireBytes.byteLength);
      const sum = engine.accumulate(batch, 1 / weight, true, gradients);
      const [loss = 0] = await expected.readFloat32("loss");
      assert.ok(Math.abs(sum.lossSum / weight / loss - 1) < 1e-5, `${sum.lossSum / weight}`);
      for (const { name: tensor } of job.layout.tensors) {
        const exact = await expected.readFloat32(`grad.${tensor}`);
        // A key's bias has no gradient, only rounding.
        if (Math.hypot(...exact) < 1e-6) continue;
        assertClose(readSlot(job.layout, tensor, gradients), exact, 1e-5, tensor);
      }
      // Training and evaluation have one loss.
      assert.ok(Math.abs(engine.evaluate(batch).lossSum / sum.lossSum - 1) < 1e-6);
    } finally {
      engine.close();
      await expected.close();
    }
  });
}
