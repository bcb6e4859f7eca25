import assert from "node:assert/strict";
import { test } from "node:test";
import { prompt } from "#lib/parameters/prompt";
import { createCaseJob } from "#tests/support/case-job";
import { caseError } from "#tests/support/case-run";
import { assertClose } from "#tests/support/compare";
import { choiceOptions as options, startingFixture } from "#tests/support/method-steps";

type Settings = Parameters<typeof prompt.choose>[0];

async function firstValues(settings: Settings, name = "gpt2"): Promise<Float32Array> {
  const fixture = await startingFixture(name);
  const model = { ...fixture, encode: async () => [7, 3] };
  const { loadMasters, layout } = prompt.choose(settings, model, options);
  const values = new Float32Array(layout.numElements);
  await loadMasters({ start: 0, end: values.length }, values);
  await fixture.close();
  return values.subarray(0, layout.tensors[0]?.size);
}

test("a text's tokens are repeated to the number of virtual ones", async () => {
  const settings = { prompt_tuning_init: "TEXT", prompt_tuning_init_text: "any" } as const;
  const values = await firstValues({ ...settings, num_virtual_tokens: 5 });
  const model = await startingFixture("gpt2");
  const table = await model.read("transformer.wte.weight");
  await model.close();
  const width = values.length / 5;
  for (const [i, id] of [7, 3, 7, 3, 7].entries()) {
    const row = table.subarray(id * width, (id + 1) * width);
    assert.deepEqual(values.subarray(i * width, (i + 1) * width), row);
  }
});

test("where a model makes tokens' vectors larger, they begin as large", async () => {
  for (const name of ["gemma2", "gemma3"]) {
    const settings = { prompt_tuning_init: "TEXT", prompt_tuning_init_text: "any" } as const;
    const values = await firstValues({ ...settings, num_virtual_tokens: 1 }, name);
    const model = await startingFixture(name);
    const table = await model.read("model.embed_tokens.weight");
    await model.close();
    const width = values.length;
    // What transformers' embed_tokens gives for the token.
    const expected = table.subarray(7 * width, 8 * width).map((value) => value * Math.sqrt(width));
    assertClose(values, expected, 1e-6, name);
  }
});

test("random vectors are normal numbers of the seed, sampled ones are rows of the table", async () => {
  const of = (prompt_tuning_init: Settings["prompt_tuning_init"]) =>
    firstValues({ prompt_tuning_init, prompt_tuning_init_text: null, num_virtual_tokens: 40 });
  const random = await of("RANDOM");
  assert.deepEqual(random, await of("RANDOM"));
  const square = random.reduce((sum, value) => sum + value * value, 0) / random.length;
  assert.ok(Math.abs(square - 1) < 0.1, String(square));
  const sampled = await of("SAMPLE_VOCAB");
  const model = await startingFixture("gpt2");
  const table = new Set(await model.read("transformer.wte.weight"));
  await model.close();
  assert.ok(sampled.every((value) => table.has(value)));
});

test("packed rows, and a text without TEXT, are refused by name", async (t) => {
  const job = await createCaseJob("23-train-local-keys");
  t.after(job.remove);
  const settings = { finetuning_type: "prompt", num_virtual_tokens: 4 };
  const refused = (changes: object): Promise<string> =>
    caseError(job, "sums.jsonl", { ...settings, ...changes });
  assert.match(await refused({ packing: true }), /E_CONFIG_CONFLICT.*packing and finetuning_type/);
  assert.match(await refused({ prompt_tuning_init: "TEXT" }), /TEXT needs a text/);
  assert.match(await refused({ prompt_tuning_init_text: "a" }), /with RANDOM the text has no eff/);
  const long =
    /max_length and finetuning_type .* puts 4,000 tokens before each row, .* 1,024 positions/;
  assert.match(await refused({ num_virtual_tokens: 4000 }), long);
  assert.match(await refused({ num_virtual_tokens: 1000, max_length: 25 }), /puts 1,000 tokens/);
  assert.equal(await refused({ num_virtual_tokens: 1000, max_length: 24 }), "no error");
});
