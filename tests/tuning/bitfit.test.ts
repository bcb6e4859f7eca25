import assert from "node:assert/strict";
import { test } from "node:test";
import { bitfit } from "#lib/parameters/bitfit";
import { assertMethodSteps, choiceOptions, startingFixture } from "#tests/support/method-steps";

// tests/reference/make_bitfit_fixture.py made the steps.

for (const name of ["gpt2", "llama-biases-linear", "bert-seqcls"]) {
  test(`five steps over the biases of ${name} are torch's`, async (t) => {
    const model = await startingFixture(name);
    t.after(() => model.close());
    const chosen = bitfit.choose({}, model, choiceOptions);
    await assertMethodSteps(`bitfit-${name}.safetensors`, model, chosen);
  });
}

test("a model without biases is refused with those that have some", async (t) => {
  const model = await startingFixture("llama-gqa-untied");
  t.after(() => model.close());
  assert.throws(() => bitfit.choose({}, model, choiceOptions), {
    code: "E_CONFIG_UNSUPPORTED",
    message: /this llama model has no biases; GPT-2, BERT/,
  });
});
