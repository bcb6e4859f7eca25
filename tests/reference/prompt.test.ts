import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { openAddedTensors } from "#lib/checkpoint/adapter-kind";
import { openSafetensors } from "#lib/checkpoint/index";
import { prompt } from "#lib/parameters/prompt";
import { assertClose } from "#tests/support/compare";
import {
  choiceOptions as options,
  methodFixture,
  startingFixture,
} from "#tests/support/method-steps";
import { modelFixtureDirectory } from "#tests/support/model-fixtures";
import { needsPeers, runPeers } from "#tests/support/peers";

// peft reads the virtual tokens that are saved here: with those of its own fixtures it has the same logits.

const settings = { prompt_tuning_init: "RANDOM", prompt_tuning_init_text: null } as const;
const numVirtual = { gpt2: 5, "llama-gqa-untied": 3, "bert-seqcls": 4 } as const;

test("peft loads what is saved, with the logits of its own directory", needsPeers(), async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-prompt-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  for (const [name, num_virtual_tokens] of Object.entries(numVirtual)) {
    const model = await startingFixture(name);
    const theirs = await openAddedTensors(methodFixture(`prompt-${name}`));
    assert.ok(theirs !== undefined);
    const chosen = prompt.choose({ ...settings, num_virtual_tokens }, model, options);
    const values = new Map<string, Float32Array>();
    for (const { name: tensor } of chosen.layout.tensors) {
      const isSaved = theirs.savedWeights.includes(tensor);
      values.set(tensor, await (isSaved ? theirs.readSaved(tensor) : theirs.readAdded(tensor)));
    }
    await mkdir(join(directory, name));
    await chosen.save(join(directory, name), {
      ...{ dtype: "float32", maxShardBytes: 1e9 },
      valuesOf: (slot) => values.get(slot.name) as Float32Array,
    });
    const [own, fixture] = await Promise.all(
      [join(directory, name), methodFixture(`prompt-${name}`)].map(async (from) =>
        readFile(join(from, "adapter_config.json"), "utf8").then(
          (text) => JSON.parse(text) as Record<string, unknown>,
        ),
      ),
    );
    assert.equal(own?.["base_model_name_or_path"], fixture?.["base_model_name_or_path"]);
    assert.equal(own?.["token_dim"], fixture?.["token_dim"]);
    assert.equal(own?.["num_layers"], fixture?.["num_layers"]);
    await model.close();
    await theirs.close();
  }
  const out = join(directory, "logits.safetensors");
  const places = Object.keys(numVirtual).map((name) => `${name}=${join(directory, name)}`);
  await runPeers("prompt_logits.py", [dirname(modelFixtureDirectory("gpt2")), out, ...places]);
  const found = await openSafetensors(out);
  t.after(() => found.close());
  for (const name of Object.keys(numVirtual)) {
    const expected = await openSafetensors(methodFixture(`prompt-${name}.safetensors`));
    const logits = await expected.readFloat32("logits");
    assertClose(await found.readFloat32(name), logits, 1e-6, name);
    await expected.close();
  }
});
