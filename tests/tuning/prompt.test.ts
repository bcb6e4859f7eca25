import { test } from "node:test";
import { prompt } from "#lib/parameters/prompt";
import {
  assertLogitsOfDirectory,
  assertStepsFromDirectory,
  choiceOptions,
  startingFixture,
} from "#tests/support/method-steps";

// tests/reference/make_prompt_fixture.py made the directories and the steps.

const settings = { prompt_tuning_init: "RANDOM", prompt_tuning_init_text: null } as const;

const numVirtual = {
  gpt2: 5,
  "llama-gqa-untied": 3,
  "bert-seqcls": 4,
  // Its head is two modules, whose names end alike.
  "distilbert-seqcls": 3,
} as const;

for (const [name, num_virtual_tokens] of Object.entries(numVirtual)) {
  test(`five steps of ${num_virtual_tokens} virtual tokens before ${name} are peft's`, async (t) => {
    const model = await startingFixture(name);
    t.after(() => model.close());
    const chosen = prompt.choose({ ...settings, num_virtual_tokens }, model, choiceOptions);
    await assertStepsFromDirectory(t, `prompt-${name}`, model, chosen);
  });

  test(`a directory of peft gives its logits before ${name}, and text goes on over cached keys`, (t) =>
    assertLogitsOfDirectory(t, `prompt-${name}`, name, {
      numBefore: num_virtual_tokens,
      chunkLength: 4,
    }));
}
