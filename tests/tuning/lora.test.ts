/** The training engine on LoRA adapters: peft's loss and gradients, and what it does not compute. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { openSafetensors } from "#lib/checkpoint/index";
import { isLockstepError } from "#lib/core/errors/index";
import type { TrainingEngine, WorkerJob } from "#lib/core/job";
import { type GraphNode, neededNodes } from "#lib/graph/builder";
import { createModel } from "#lib/models/index";
import type { LoraJob } from "#lib/parameters/lora-layout";
import createEngine from "#lib/tuning/engine";
import { buildTrainingPrograms } from "#lib/tuning/programs";
import { assertClose, relativeError, testValues } from "#tests/support/compare";
import {
  type LoraFixture,
  loraFixtureDirectory,
  loraFixtures,
  loadFrozen,
  readLoraFixture,
} from "#tests/support/lora-fixtures";
import { readSlot, writeSlot } from "#tests/support/tiny-llama";
import { tokensOf } from "#tests/support/batches";

async function openEngine({ job, frozen, trained }: LoraFixture): Promise<TrainingEngine> {
  const engine = await createEngine(job);
  await loadFrozen(engine, job.frozen, frozen);
  engine.loadParameters(trained);
  return engine;
}

for (const name of loraFixtures) {
  test(`${name}: loss and every gradient of an adapter are peft's`, async () => {
    const fixture = await readLoraFixture(name, "fp32");
    const { job, trained, batch, numTargets } = fixture;
    const engine = await openEngine(fixture);
    const expected = await openSafetensors(
      join(loraFixtureDirectory(name), "expected.safetensors"),
    );
    try {
      const gradients = new Uint8Array(trained.byteLength);
      const { lossSum } = engine.accumulate(batch, 1 / numTargets, true, gradients);
      const [loss] = await expected.readFloat32("loss");
      assert.ok(Math.abs(lossSum / numTargets / (loss as number) - 1) < 1e-6);
      assert.equal(job.layout.tensors.length, expected.tensors.size - 1);
      for (const { name: slot } of job.layout.tensors) {
        const exact = await expected.readFloat32(`grad.base_model.model.${slot}`);
        assertClose(readSlot(job.layout, slot, gradients), exact, 1e-4, slot);
      }
    } finally {
      engine.close();
      await expected.close();
    }
  });

  test(`${name}: the merged model gives the adapter's loss and text`, async () => {
    const fixture = await readLoraFixture(name, "fp32");
    const { merged, batch } = fixture;
    const engines = [await openEngine(fixture), await createEngine(merged.job)] as const;
    engines[1].loadParameters(merged.wireBytes);
    const [adapted, whole] = engines.map((engine) => engine.evaluate(batch).lossSum) as [
      number,
      number,
    ];
    assert.ok(Math.abs(adapted / whole - 1) < 1e-6, `${adapted} and ${whole}`);
    if (merged.job.generationLength > 0) {
      const prompt = tokensOf(batch).slice(0, 8);
      const [ours, theirs] = engines.map((engine) => engine.generate(prompt, 12, []));
      assert.deepEqual(ours, theirs);
    }
    for (const engine of engines) engine.close();
  });
}

test("gradients of an adapter agree with central differences", async () => {
  const fixture = await readLoraFixture("gpt2", "fp32");
  const { job, trained, batch } = fixture;
  const engine = await openEngine(fixture);
  const gradients = new Uint8Array(trained.byteLength);
  engine.accumulate(batch, 1, true, gradients);
  job.layout.tensors.forEach(({ name, size }, index) => {
    const values = readSlot(job.layout, name, trained);
    const direction = testValues(size, index + 1);
    const lossAt = (distance: number): number => {
      const moved = trained.slice();
      writeSlot(
        job.layout,
        name,
        values.map((value, i) => value + distance * (direction[i] as number)),
        moved,
      );
      engine.loadParameters(moved);
      return engine.evaluate(batch).lossSum;
    };
    const difference = (lossAt(2e-3) - lossAt(-2e-3)) / 4e-3;
    const gradient = readSlot(job.layout, name, gradients);
    const slope = gradient.reduce((sum, value, i) => sum + value * (direction[i] as number), 0);
    const tolerance = 1e-2 * Math.hypot(...gradient);
    assert.ok(Math.abs(difference - slope) < tolerance, `${name}: ${difference} and ${slope}`);
  });
  engine.close();
});

for (const [name, precision, tolerance] of [
  ["llama-gqa-untied", "bf16", 0.1],
  ["llama-gqa-untied", "fp16", 0.02],
  ["llama-gqa-untied-dora", "bf16", 0.1],
  ["gpt2-dora", "fp16", 0.02],
] as const) {
  test(`${name}: ${precision} stays near fp32, and a group accumulates`, async () => {
    const fixture = await readLoraFixture(name, precision);
    const { job, trained, batch, numTargets } = fixture;
    const engine = await openEngine(fixture);
    const expected = await openSafetensors(
      join(loraFixtureDirectory(name), "expected.safetensors"),
    );
    const once = new Uint8Array(trained.byteLength);
    const twice = new Uint8Array(trained.byteLength);
    const { lossSum } = engine.accumulate(batch, 1 / numTargets, true, once);
    const [loss] = await expected.readFloat32("loss");
    assert.ok(Math.abs(lossSum / numTargets / (loss as number) - 1) < 5e-3);
    engine.accumulate(batch, 0.5 / numTargets, true);
    engine.accumulate(batch, 0.5 / numTargets, false, twice);
    for (const { name } of job.layout.tensors) {
      const exact = await expected.readFloat32(`grad.base_model.model.${name}`);
      const actual = readSlot(job.layout, name, once);
      const error = relativeError(actual, exact);
      assert.ok(error < tolerance, `${name}: ${error}`);
      assertClose(readSlot(job.layout, name, twice), actual, 1e-2, name);
    }
    await expected.close();
    engine.close();
  });
}

test("backward has no product for a frozen weight, and none below the lowest adapter", async () => {
  const { job } = await readLoraFixture("gpt2", "bf16");
  const model = createModel(job.modelConfig, { task: "causal-lm" });
  const { gradients } = buildTrainingPrograms(model, job);
  // Two layers with an adapter on c_attn. Forward: four products and two of the adapter a layer, and the
  // head. Backward: the head, four a layer but for c_attn of the lowest, and of each adapter dA, dB and
  // the narrow product's, with the input's in the upper layer.
  const forward = 2 * (4 + 2) + 1;
  const backward = 1 + (4 + 3) + 2 * 3 + 1;
  assert.equal(countProducts(Object.values(gradients.only.fetches)), forward + backward);
});

function countProducts(fetches: readonly { readonly node: GraphNode }[]): number {
  const needed = neededNodes(fetches.map(({ node }) => node));
  return [...needed].filter(({ op }) => op === "MatMul").length;
}

test("an adapter on what is no linear map is refused", async () => {
  const { job } = await readLoraFixture("gpt2", "fp32");
  const scales = { ...job.parameters.scales, "transformer.h.0.ln_1": 1 };
  const parameters: LoraJob = { ...job.parameters, scales };
  const wrong: WorkerJob = { ...job, parameters };
  await assert.rejects(
    createEngine(wrong),
    (error) => isLockstepError(error) && error.code === "E_ADAPTER_TARGET",
  );
});
