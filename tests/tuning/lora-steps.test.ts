import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { openSafetensors } from "#lib/checkpoint/index";
import type { Batch } from "#lib/core/batch";
import { packageRoot } from "#lib/core/paths";
import createEngine from "#lib/tuning/engine";
import { assertClose } from "#tests/support/compare";
import { loadFrozen, readLoraFixture } from "#tests/support/lora-fixtures";
import { OptimizerRun, optimizerOf } from "#tests/support/optimizer-runs";
import { readSlot, writeSlot } from "#tests/support/tiny-llama";

// Five steps in float32 are those of torch over peft's adapters: tests/reference/make_lora_steps_fixture.py.

const root = join(packageRoot, "tests/fixtures/lora-steps");
const weight_decay = 0.1;
const optimizers = {
  sgd: {
    optimizer: optimizerOf({ optim: "sgd", optim_args: { momentum: 0.9 }, weight_decay }),
    ...{ rate: 0.1, tolerance: 1e-4 },
  },
  adamw: {
    optimizer: optimizerOf({ optim: "adamw_torch", adam_epsilon: 1e-6, weight_decay }),
    ...{ rate: 1e-2, tolerance: 1e-3 },
  },
} as const;

/** The tokens of a step. */
function batchOf({ fields, ...batch }: Batch, step: number, vocabSize: number): Batch {
  const tokens = (fields["tokens"] as Int32Array).map((token) => (token + 3 * step) % vocabSize);
  return { ...batch, fields: { ...fields, tokens } };
}

for (const name of readdirSync(root).sort()) {
  test(`${name}: losses of five steps, and what they end with, are torch's`, async () => {
    const fixture = await readLoraFixture(name, "fp32", { adapterDirectory: join(root, name) });
    const { job, batch, numTargets } = fixture;
    const { layout } = job;
    const vocabSize = Number(job.modelConfig["vocab_size"]);
    const engine = await createEngine(job);
    await loadFrozen(engine, job.frozen, fixture.frozen);
    for (const [kind, { optimizer, rate, tolerance }] of Object.entries(optimizers)) {
      const expected = await openSafetensors(join(root, name, `${kind}.safetensors`));
      const losses = await expected.readFloat32("losses");
      const wire = fixture.trained.slice();
      const flat = (bytes: Uint8Array): Float32Array => {
        const values = new Float32Array(layout.numElements);
        for (const { name: slot, offset } of layout.tensors) {
          values.set(readSlot(layout, slot, bytes), offset);
        }
        return values;
      };
      const run = await OptimizerRun.start(layout, optimizer, { learningRateAt: () => rate });
      run.setMasters(flat(wire));
      const masters = run.shards[0]?.masters as Float32Array;
      const gradient = new Uint8Array(wire.byteLength);
      for (const [step, loss] of losses.entries()) {
        engine.loadParameters(wire);
        const of = batchOf(batch, step, vocabSize);
        const { lossSum } = engine.accumulate(of, 1 / numTargets, true, gradient);
        assertClose([lossSum / numTargets], [loss], tolerance, `${kind}: loss of step ${step + 1}`);
        await run.step(step, flat(gradient));
        for (const { name: slot, offset, size } of layout.tensors) {
          writeSlot(layout, slot, masters.subarray(offset, offset + size), wire);
        }
      }
      assert.equal(expected.tensors.size, layout.tensors.length + 1);
      for (const { name: slot } of layout.tensors) {
        const [ours, theirs] = [readSlot(layout, slot, wire), await expected.readFloat32(slot)];
        assertClose(ours, theirs, tolerance, `${kind}: ${slot}`);
      }
      await expected.close();
    }
    engine.close();
  });
}
