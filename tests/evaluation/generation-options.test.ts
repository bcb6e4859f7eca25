import assert from "node:assert/strict";
import { test } from "node:test";
import { readGenerationConfig } from "#lib/evaluation/generate/options";
import { firstStop, settledLength } from "#lib/evaluation/generate/stop-strings";

const read = (json: Record<string, unknown>) =>
  readGenerationConfig("generation_config.json", json);

test("options come from generation_config.json, under transformers' names", () => {
  assert.deepEqual(
    read({
      _from_model_config: true,
      do_sample: true,
      temperature: 0.6,
      top_k: 20,
      top_p: 0.95,
      repetition_penalty: 1.05,
      max_new_tokens: 64,
      eos_token_id: [7, 9],
      stop_strings: "END",
      pad_token_id: 3,
      transformers_version: "5.24.0",
    }),
    {
      doSample: true,
      temperature: 0.6,
      topK: 20,
      topP: 0.95,
      repetitionPenalty: 1.05,
      maxNewTokens: 64,
      endTokenIds: [7, 9],
      stopStrings: ["END"],
    },
  );
  assert.deepEqual(read({ eos_token_id: 2, num_beams: 1, min_p: null, top_k: null }), {
    endTokenIds: [2],
  });
});

test("an option that would change the tokens and is not supported is refused by name", () => {
  for (const [key, value] of [
    ["num_beams", 4],
    ["no_repeat_ngram_size", 3],
    ["min_p", 0.1],
    ["suppress_tokens", [1, 2]],
    ["temperature", 0],
    ["top_p", 1.5],
    ["eos_token_id", "</s>"],
    ["do_sample", "yes"],
  ] as const) {
    assert.throws(() => read({ [key]: value }), { code: "E_GENERATION_CONFIG" }, key);
  }
});

test("the first of the stop strings ends the text", () => {
  assert.equal(firstStop("one two three", ["three", "two"]), 4);
  assert.equal(firstStop("one two three", ["four"]), undefined);
});

test("text is shown only when nothing can change it", () => {
  assert.equal(settledLength("hello", []), 5);
  assert.equal(settledLength("hello <", ["<end>"]), 6);
  assert.equal(settledLength("hello <en", ["<end>", "\n"]), 6);
  assert.equal(settledLength("hello <ex", ["<end>"]), 9);
  assert.equal(settledLength("caf\ufffd", []), 3);
  assert.equal(settledLength("a <\ufffd", ["<end>"]), 2);
});
