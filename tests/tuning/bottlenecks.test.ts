import assert from "node:assert/strict";
import { test } from "node:test";
import { openAddedTensors } from "#lib/checkpoint/adapter-kind";
import { openSafetensors } from "#lib/checkpoint/index";
import { Generator, generationDefaults } from "#lib/evaluation/generate/index";
import { computeCase, keptRows } from "#lib/evaluation/verify/index";
import { adapter } from "#lib/parameters/adapter";
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

// tests/reference/make_bottleneck_fixture.py made the directories and the steps, with AdapterHub's library.

const cases = {
  gpt2: { adapter_config: "double_seq_bn", reduction_factor: 6 },
  "llama-gqa-untied": { adapter_config: "seq_bn", reduction_factor: 4 },
  "bert-seqcls": { adapter_config: "double_seq_bn", reduction_factor: 8 },
  "distilbert-seqcls": { adapter_config: "seq_bn", reduction_factor: 8 },
} as const;

for (const [name, settings] of Object.entries(cases)) {
  const fixture = methodFixture(`bottleneck-${name}`);

  test(`five steps of ${settings.adapter_config} in ${name} are those of adapters`, async (t) => {
    const model = await startingFixture(name);
    t.after(() => model.close());
    const chosen = adapter.choose({ ...settings, non_linearity: null }, model, options);
    const saved = await openAddedTensors(fixture);
    assert.ok(saved !== undefined);
    t.after(() => saved.close());
    const start = (tensor: string): Promise<Float32Array> =>
      saved.savedWeights.includes(tensor) ? saved.readSaved(tensor) : saved.readAdded(tensor);
    await assertMethodSteps(`bottleneck-${name}.safetensors`, model, chosen, { start });
  });

  test(`a directory of adapters gives its logits in ${name}, and text goes on over cached keys`, async (t) => {
    const base = modelFixtureDirectory(name);
    const opened = await openModel(await findAdapter(fixture, { base }));
    t.after(() => opened.close());
    const { model, readWeight } = opened;
    const reference = readFixtureCase(name);
    const result = await computeCase(model, readWeight, reference);
    const expected = await openSafetensors(methodFixture(`bottleneck-${name}.safetensors`));
    t.after(() => expected.close());
    const [loss = 0] = await expected.readFloat32("sgd.losses");
    assert.ok(Math.abs(result.loss / loss - 1) < 1e-5, `loss ${result.loss}, not ${loss}`);
    const logits = await expected.readFloat32("logits");
    if (model.task !== "causal-lm") {
      assertClose(result.logits, logits, 1e-5, "logits");
      return;
    }
    const kept = (values: Float32Array) => keptRows(values, reference.attentionMask);
    assertClose(kept(result.logits), kept(logits), 1e-5, "logits");
    const { greedy } = reference;
    assert.ok(greedy !== undefined);
    const maxLength = greedy.prompt.length + greedy.continuation.length;
    const generator = await Generator.create({ model, readWeight, maxLength });
    t.after(() => generator.close());
    const [continued] = await generator.generate([Int32Array.from(greedy.prompt)], {
      ...{ ...generationDefaults, endTokenIds: [], doSample: false },
      maxNewTokens: greedy.continuation.length,
    });
    assert.deepEqual([...(continued?.tokens ?? [])], [...(result.continuation ?? [])]);
  });
}

test("a type that AdapterHub's library does not have is refused with those that it has", async (t) => {
  const model = await startingFixture("qwen2-tied");
  t.after(() => model.close());
  const settings = { ...cases.gpt2, non_linearity: null };
  assert.throws(() => adapter.choose(settings, model, options), {
    code: "E_CONFIG_UNSUPPORTED",
    message: /has no qwen2; BERT, RoBERTa, DistilBERT, GPT-2, Llama and Mistral/,
  });
});
