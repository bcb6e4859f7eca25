import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { openAddedTensors } from "#lib/checkpoint/adapter-kind";
import { openSafetensors, writeSafetensors } from "#lib/checkpoint/index";
import { weightsSha256 } from "#lib/checkpoint/weights-digest";
import { adapter } from "#lib/parameters/adapter";
import { prompt } from "#lib/parameters/prompt";
import { findAdapter } from "#run/model-place";
import { openModel } from "#run/open-model";
import { openModelWeights } from "#run/model-weights";
import { modelWeights } from "#run/starting-model";
import {
  choiceOptions as options,
  methodFixture,
  startingFixture,
} from "#tests/support/method-steps";
import { modelFixtureDirectory } from "#tests/support/model-fixtures";

type Fixture = Awaited<ReturnType<typeof startingFixture>>;

const none = { prompt_tuning_init_text: null, non_linearity: null } as const;
const kinds = {
  prompt: (model: Fixture) =>
    prompt.choose({ ...none, num_virtual_tokens: 2, prompt_tuning_init: "RANDOM" }, model, options),
  adapter: (model: Fixture) =>
    adapter.choose({ ...none, adapter_config: "seq_bn", reduction_factor: 4 }, model, options),
};

test("a saved weight that the model does not have is refused, and not left out", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-bound-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const fixture = methodFixture("prompt-gpt2");
  const file = await openSafetensors(join(fixture, "adapter_model.safetensors"));
  const vectors = await file.readFloat32("prompt_embeddings");
  const { shape } = file.info("prompt_embeddings");
  await file.close();
  const tensors = [
    { name: "prompt_embeddings", shape, read: () => vectors },
    // GPT-2's head is its table of tokens.
    { name: "base_model.lm_head.weight", shape: [2, 2], read: () => new Float32Array(4) },
  ];
  const config = join(directory, "adapter_config.json");
  const own = JSON.parse(await readFile(join(fixture, "adapter_config.json"), "utf8")) as object;
  const base = modelFixtureDirectory("gpt2");
  await writeFile(config, JSON.stringify({ ...own, zzz: 1 }));
  await writeSafetensors(
    join(directory, "adapter_model.safetensors"),
    tensors.map(({ name, shape: dims }) => ({ name, shape: dims, dtype: "F32" })),
    async (name) => {
      const values = tensors.find((tensor) => tensor.name === name)?.read() ?? new Float32Array();
      return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    },
  );
  await assert.rejects(openModel(await findAdapter(directory, { base })), {
    code: "E_ADAPTER_TENSOR",
    message: /lm_head\.weight is no weight of this gpt2 model with its causal-lm head/,
  });
  const added = await openAddedTensors(directory);
  assert.match(added?.warnings.join() ?? "", /^[^,]*the key zzz is unknown and has no effect$/);
  await added?.close();
});

for (const [kind, choose] of Object.entries(kinds)) {
  test(`what ${kind} saves opens over the base that it was trained on, and over no other`, async (t) => {
    const base = modelFixtureDirectory("gpt2");
    const fixture = await startingFixture("gpt2");
    const weights = await openModelWeights(base);
    t.after(() => Promise.all([fixture.close(), weights.close()]));
    const own = await weightsSha256(weights, modelWeights(weights, fixture.modelConfig));
    for (const [digest, isOwn] of [
      [own, true],
      [own.replace(/^../, "zz"), false],
    ] as const) {
      const directory = await mkdtemp(join(tmpdir(), "lockstep-bound-"));
      t.after(() => rm(directory, { recursive: true, force: true }));
      const { save } = choose({ ...fixture, digest: async () => digest });
      await save(directory, {
        ...{ dtype: "float32", maxShardBytes: 1e9 },
        valuesOf: ({ size }) => new Float32Array(size),
      });
      const open = async () => openModel(await findAdapter(directory, { base }));
      if (isOwn) await (await open()).close();
      else {
        await assert.rejects(open, {
          code: "E_ADAPTER_BASE",
          message: /has other weights than the one that it was trained on/,
        });
      }
    }
  });
}
