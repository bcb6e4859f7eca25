import assert from "node:assert/strict";
import { test } from "node:test";
import { openAddedTensors } from "#lib/checkpoint/adapter-kind";
import { openSafetensors } from "#lib/checkpoint/index";
import { Generator, generationDefaults } from "#lib/evaluation/generate/index";
import { computeCase, keptRows } from "#lib/evaluation/verify/index";
import { prompt } from "#lib/parameters/prompt";
import { findAdapter } from "#run/model-place";
import { openModel } from "#run/open-model";
import { assertClose } from "#tests/support/compare";
import {
  choiceOptions as options,
  assertMethodSteps,
  methodFixture,
  startingFixture,
} from "#tests/support/method-steps";
import { modelFixtureDirectory, readFixtureCase } from "#tests/support/model-fixtures";

// tests/reference/make_prompt_fixture.py made the directories and the steps.

const settings = { prompt_tuning_init: "RANDOM", prompt_tuning_init_text: null } as const;

const numVirtual = { gpt2: 5, "llama-gqa-untied": 3, "bert-seqcls": 4 } as const;

for (const [name, num_virtual_tokens] of Object.entries(numVirtual)) {
  test(`five steps of ${num_virtual_tokens} virtual tokens before ${name} are peft's`, async (t) => {
    const model = await startingFixture(name);
    t.after(() => model.close());
    const chosen = prompt.choose({ ...settings, num_virtual_tokens }, model, options);
    const saved = await openAddedTensors(methodFixture(`prompt-${name}`));
    assert.ok(saved !== undefined);
    t.after(() => saved.close());
    const start = (tensor: string): Promise<Float32Array> =>
      saved.savedWeights.includes(tensor) ? saved.readSaved(tensor) : saved.readAdded(tensor);
    await assertMethodSteps(`prompt-${name}.safetensors`, model, chosen, { start });
  });

  test(`a directory of peft gives its logits before ${name}, and text goes on over cached keys`, async (t) => {
    const base = modelFixtureDirectory(name);
    const opened = await openModel(await findAdapter(methodFixture(`prompt-${name}`), { base }));
    t.after(() => opened.close());
    const { model, readWeight } = opened;
    const reference = readFixtureCase(name);
    const result = await computeCase(model, readWeight, reference);
    const expected = await openSafetensors(methodFixture(`prompt-${name}.safetensors`));
    t.after(() => expected.close());
    const [loss = 0] = await expected.readFloat32("sgd.losses");
    assert.ok(Math.abs(result.loss / loss - 1) < 1e-5, `loss ${result.loss}, not ${loss}`);
    const logits = await expected.readFloat32("logits");
    if (model.task !== "causal-lm") {
      assertClose(result.logits, logits, 1e-5, "logits");
      return;
    }
    const { numRows, rowLength, attentionMask, greedy } = reference;
    const width = logits.length / numRows / (rowLength + num_virtual_tokens);
    const ofTokens = Array.from({ length: numRows }, (_, row) => {
      const first = row * (rowLength + num_virtual_tokens) + num_virtual_tokens;
      return [...logits.subarray(first * width, (first + rowLength) * width)];
    }).flat();
    const kept = (values: Float32Array) => keptRows(values, attentionMask);
    assertClose(kept(result.logits), kept(Float32Array.from(ofTokens)), 1e-5, "logits");
    assert.ok(greedy !== undefined);
    const maxLength = greedy.prompt.length + greedy.continuation.length;
    const generator = await Generator.create({ model, readWeight, maxLength, chunkLength: 4 });
    t.after(() => generator.close());
    const [continued] = await generator.generate([Int32Array.from(greedy.prompt)], {
      ...{ ...generationDefaults, endTokenIds: [], doSample: false },
      maxNewTokens: greedy.continuation.length,
    });
    assert.deepEqual([...(continued?.tokens ?? [])], [...(result.continuation ?? [])]);
  });
}
