import assert from "node:assert/strict";
import { test } from "node:test";
import { adapter } from "#lib/parameters/adapter";
import {
  assertLogitsOfDirectory,
  assertStepsFromDirectory,
  choiceOptions,
  startingFixture,
} from "#tests/support/method-steps";

// tests/reference/make_bottleneck_fixture.py made the directories and the steps, with AdapterHub's library.

const cases = {
  gpt2: { adapter_config: "double_seq_bn", reduction_factor: 6 },
  "llama-gqa-untied": { adapter_config: "seq_bn", reduction_factor: 4 },
  "bert-seqcls": { adapter_config: "double_seq_bn", reduction_factor: 8 },
  "distilbert-seqcls": { adapter_config: "seq_bn", reduction_factor: 8 },
} as const;

for (const [name, settings] of Object.entries(cases)) {
  test(`five steps of ${settings.adapter_config} in ${name} are those of adapters`, async (t) => {
    const model = await startingFixture(name);
    t.after(() => model.close());
    const chosen = adapter.choose({ ...settings, non_linearity: null }, model, choiceOptions);
    await assertStepsFromDirectory(t, `bottleneck-${name}`, model, chosen);
  });

  test(`a directory of adapters gives its logits in ${name}, and text goes on over cached keys`, (t) =>
    assertLogitsOfDirectory(t, `bottleneck-${name}`, name));
}

test("a type that AdapterHub's library does not have is refused with those that it has", async (t) => {
  const model = await startingFixture("qwen2-tied");
  t.after(() => model.close());
  const settings = { ...cases.gpt2, non_linearity: null };
  assert.throws(() => adapter.choose(settings, model, choiceOptions), {
    code: "E_CONFIG_UNSUPPORTED",
    message: /has no qwen2; BERT, RoBERTa, DistilBERT, GPT-2, Llama and Mistral/,
  });
});
