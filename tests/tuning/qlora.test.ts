/**
 * Adapters beside weights of 4 bits: five steps are those of peft, over a model that transformers loaded with
 * bitsandbytes (tests/reference/make_qlora_fixture.py).
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { openSafetensors } from "#lib/checkpoint/index";
import type { TrainingEngine } from "#lib/core/job";
import type { Nf4Form } from "#lib/core/nf4";
import { type ParameterLayout, wireSizeBytes } from "#lib/core/parameter-layout";
import createEngine from "#lib/tuning/engine";
import { assertClose } from "#tests/support/compare";
import { type LoraFixture, loadFrozen, readLoraFixture } from "#tests/support/lora-fixtures";

type Optimizer = "sgd" | "adamw";
const losses = JSON.parse(readFileSync("tests/fixtures/qlora/losses.json", "utf8")) as Record<
  string,
  Readonly<Record<Optimizer, readonly number[]>> & { readonly double: boolean }
>;
const formOf = (name: string): Nf4Form => (losses[name]?.double === true ? "nf4-double" : "nf4");

async function openEngine({ job, frozen }: LoraFixture): Promise<TrainingEngine> {
  const engine = await createEngine(job);
  await loadFrozen(engine, job.frozen, frozen);
  return engine;
}

/** torch's updates, in float64, of masters that are float32; the fixture's script names the settings. */
const updates: Readonly<
  Record<Optimizer, () => (masters: Float32Array, gradients: Float32Array) => void>
> = {
  sgd: () => (masters, gradients) => {
    gradients.forEach((gradient, i) => {
      masters[i] = (masters[i] as number) - 0.05 * gradient;
    });
  },
  adamw: () => {
    let step = 0;
    let [first, second] = [new Float64Array(0), new Float64Array(0)];
    return (masters, gradients) => {
      step += 1;
      if (step === 1)
        [first, second] = [new Float64Array(masters.length), new Float64Array(masters.length)];
      gradients.forEach((gradient, i) => {
        first[i] = 0.9 * (first[i] as number) + 0.1 * gradient;
        second[i] = 0.999 * (second[i] as number) + 0.001 * gradient ** 2;
        const mean = (first[i] as number) / (1 - 0.9 ** step);
        const root = Math.sqrt((second[i] as number) / (1 - 0.999 ** step));
        masters[i] = (masters[i] as number) * (1 - 1e-3 * 0.01) - (1e-3 * mean) / (root + 1e-8);
      });
    };
  },
};

const floats = ({ buffer, byteOffset, byteLength }: Uint8Array): Float32Array =>
  new Float32Array(buffer, byteOffset, byteLength / 4);

const slotValues = ({ tensors }: ParameterLayout, values: Float32Array, name: string) => {
  const slot = tensors.find((each) => each.name === name);
  assert.ok(slot, name);
  return values.subarray(slot.offset, slot.offset + slot.size);
};

for (const name of Object.keys(losses)) {
  for (const [optimizer, tolerance] of [
    ["sgd", 1e-4],
    ["adamw", 1e-3],
  ] as const) {
    test(`${name}: five steps of ${optimizer} over 4-bit weights are those of peft`, async () => {
      const fixture = await readLoraFixture(name, "fp32", { form: formOf(name) });
      const { job, trained, batch, numTargets } = fixture;
      const expected = await openSafetensors(`tests/fixtures/qlora/${name}.safetensors`);
      const engine = await openEngine(fixture);
      try {
        const update = updates[optimizer]();
        const gradients = new Uint8Array(wireSizeBytes(job.layout));
        for (const loss of losses[name]?.[optimizer] ?? []) {
          engine.loadParameters(trained);
          const { lossSum } = engine.accumulate(batch, 1 / numTargets, true, gradients);
          assert.ok(
            Math.abs(lossSum / numTargets / loss - 1) < 1e-5,
            `${lossSum / numTargets} and ${loss}`,
          );
          update(floats(trained), floats(gradients));
        }
        for (const { name: slot } of job.layout.tensors) {
          const exact = await expected.readFloat32(`${optimizer}.base_model.model.${slot}`);
          assertClose(slotValues(job.layout, floats(trained), slot), exact, tolerance, slot);
        }
      } finally {
        engine.close();
        await expected.close();
      }
    });
  }
}
