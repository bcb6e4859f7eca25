import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { importGguf, ModelWeights } from "#lib/checkpoint/index";
import { loadTokenizer } from "#lib/data/index";
import { fixture, temporaryDirectory } from "./support.js";

test("a tied model with a SentencePiece tokenizer gives SentencePiece's own ids", async (t) => {
  const directory = join(await temporaryDirectory(t), "model");
  await importGguf(fixture("tiny-gguf-sentencepiece", "tiny.gguf"), directory);
  const tokenizer = await loadTokenizer(directory);
  const cases = JSON.parse(
    await readFile(fixture("tiny-gguf-sentencepiece", "tokens.json"), "utf8"),
  );
  for (const { text, ids, decoded } of cases as {
    text: string;
    ids: number[];
    decoded: string;
  }[]) {
    assert.deepEqual([...(await tokenizer.encode(text))], ids, text);
    assert.equal(await tokenizer.decode(ids), decoded);
  }
  const bos = tokenizer.bosTokenId as number;
  // llama.cpp puts the beginning-of-sequence token in front unless the file says otherwise.
  assert.equal((await tokenizer.encode("x", { addSpecialTokens: true }))[0], bos);
  const config = JSON.parse(await readFile(join(directory, "config.json"), "utf8"));
  assert.equal(config.tie_word_embeddings, true);
  assert.equal(config.rope_parameters.rope_theta, 10_000);
  const weights = await ModelWeights.open(directory);
  t.after(() => weights.close());
  assert.ok(!weights.has("lm_head.weight"));
});
