import { test } from "node:test";
import { freeze } from "#lib/parameters/freeze";
import { assertMethodSteps, choiceOptions, startingFixture } from "#tests/support/method-steps";

// tests/reference/make_freeze_fixture.py made the steps.

const settings = {
  freeze_trainable_layers: 1,
  freeze_trainable_modules: ["all"],
  freeze_extra_modules: null,
};

for (const name of ["gpt2", "llama-gqa-untied", "bert-seqcls"]) {
  test(`five steps over the last layer of ${name} are torch's`, async (t) => {
    const model = await startingFixture(name);
    t.after(() => model.close());
    const chosen = freeze.choose(settings, model, choiceOptions);
    await assertMethodSteps(`freeze-${name}.safetensors`, model, chosen);
  });
}
