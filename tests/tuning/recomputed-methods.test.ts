import assert from "node:assert/strict";
import { test } from "node:test";
import { z } from "zod";
import { countTargets } from "#lib/core/batch";
import { wireSizeBytes } from "#lib/core/parameter-layout";
import { readWireSpace } from "#lib/core/wire-space";
import { adapter } from "#lib/parameters/adapter";
import type { ChosenParameters } from "#lib/parameters/index";
import type { ChoiceOptions } from "#lib/parameters/kind";
import { lora } from "#lib/parameters/lora";
import { loraFields } from "#lib/parameters/lora-keys";
import { prompt } from "#lib/parameters/prompt";
import createEngine from "#lib/tuning/engine";
import { batchOf, loadFrozen } from "#tests/support/lora-fixtures";
import { choiceOptions, methodJob, startingFixture } from "#tests/support/method-steps";

type Fixture = Awaited<ReturnType<typeof startingFixture>>;

const ofLora = (keys: object) =>
  z
    .object(loraFields)
    .parse({ use_peft: true, lora_r: 4, lora_target_modules: "all-linear", ...keys });
const none = { prompt_tuning_init_text: null, non_linearity: null } as const;
const methods: Readonly<
  Record<string, (model: Fixture, options: ChoiceOptions) => ChosenParameters>
> = {
  prompt: (...of) =>
    prompt.choose({ ...none, num_virtual_tokens: 3, prompt_tuning_init: "RANDOM" }, ...of),
  adapter: (...of) =>
    adapter.choose({ ...none, adapter_config: "double_seq_bn", reduction_factor: 4 }, ...of),
  DoRA: (...of) => lora.choose(ofLora({ use_dora: true }), ...of),
  QLoRA: (...of) =>
    lora.choose(ofLora({ load_in_4bit: true, bnb_4bit_use_double_quant: true }), ...of),
};

/** Decoders recompute theirs in tests/training. */
const name = "bert-seqcls";

/** Loss and gradient of the fixture's case with bfloat16 products. */
async function gradientOf(model: Fixture, chosen: ChosenParameters, changes: object) {
  const { layout, frozen, loadFrozen: load, loadMasters } = chosen;
  const batch = batchOf(name);
  const job = methodJob(model.modelConfig, batch, chosen, { precision: "bf16", ...changes });
  const engine = await createEngine(job);
  try {
    if (frozen !== undefined && load !== undefined) {
      await loadFrozen(engine, frozen, await readWireSpace(frozen, load));
    }
    engine.loadParameters(await readWireSpace(layout, loadMasters));
    const wire = new Uint8Array(wireSizeBytes(layout));
    const numTargets = countTargets(batch.fields["targets"] ?? batch.fields["label"]);
    const { lossSum } = engine.accumulate(batch, 1 / numTargets, true, wire);
    return { lossSum, wire };
  } finally {
    engine.close();
  }
}

for (const [method, choose] of Object.entries(methods)) {
  test(`${method} beside a classifier's head: recomputed activations change no bit`, async (t) => {
    const model = await startingFixture(name);
    t.after(() => model.close());
    const chosen = choose(model, { ...choiceOptions, frozenDtype: "bfloat16" });
    const kept = await gradientOf(model, chosen, {});
    assert.ok(Number.isFinite(kept.lossSum) && kept.wire.some((byte) => byte !== 0));
    assert.deepEqual(await gradientOf(model, chosen, { gradientCheckpointing: true }), kept);
  });
}
