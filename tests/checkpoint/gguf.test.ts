import assert from "node:assert/strict";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { halfSplitRow } from "#lib/checkpoint/gguf/decode";
import { llama3Divisor } from "#lib/checkpoint/gguf/rope";
import { importGguf, ModelWeights, preTokenizerName, SafetensorsFile } from "#lib/checkpoint/index";
import { bfloat16ToFloat32, float32ToBfloat16 } from "#lib/core/bf16";
import { loadTokenizer } from "#lib/data/index";
import { fixture, rejectsWith, temporaryDirectory } from "./support.js";

const tiny = fixture("tiny-gguf", "tiny.gguf");

test("every tensor type is imported to the bit as the gguf package dequantises it", async (t) => {
  const directory = join(await temporaryDirectory(t), "model");
  const steps: number[] = [];
  const { numParameters } = await importGguf(tiny, directory, (p) => steps.push(p.parametersDone));
  const ours = await ModelWeights.open(directory);
  t.after(() => ours.close());
  const expected = await SafetensorsFile.open(fixture("tiny-gguf", "expected.safetensors"));
  t.after(() => expected.close());
  assert.deepEqual(ours.names(), [...expected.tensors.keys()].sort());
  for (const name of ours.names()) {
    assert.deepEqual(ours.info(name).shape, expected.info(name).shape);
    assert.deepEqual(await ours.readFloat32(name), await expected.readFloat32(name), name);
  }
  const total = [...expected.tensors.values()].reduce((sum, tensor) => sum + tensor.numElements, 0);
  assert.equal(numParameters, total);
  assert.equal(steps.at(-1), total);
});

test("--dtype bfloat16 rounds the same values", async (t) => {
  const directory = join(await temporaryDirectory(t), "model");
  await importGguf(tiny, directory, undefined, { dtype: "bfloat16" });
  const ours = await ModelWeights.open(directory);
  t.after(() => ours.close());
  const expected = await SafetensorsFile.open(fixture("tiny-gguf", "expected.safetensors"));
  t.after(() => expected.close());
  for (const name of ours.names()) {
    const rounded = bfloat16ToFloat32(float32ToBfloat16(await expected.readFloat32(name)));
    assert.deepEqual(await ours.readFloat32(name), rounded, name);
  }
  assert.match(await readFile(join(directory, "config.json"), "utf8"), /"dtype": "bfloat16"/);
});

test("the directory holds what both generations of transformers look for", async (t) => {
  const directory = join(await temporaryDirectory(t), "model");
  await importGguf(tiny, directory);
  assert.deepEqual((await readdir(directory)).sort(), [
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
  ]);
  const text = await readFile(join(directory, "config.json"), "utf8");
  // A float in Python's eyes, and the decimal that was meant, not the float32 next to it.
  assert.match(text, /"rms_norm_eps": 1e-05,/);
  const config = JSON.parse(text);
  assert.deepEqual(config.rope_parameters, { rope_theta: 50000, rope_type: "default" });
  assert.equal(config.rope_theta, 50000);
  assert.equal(config.tie_word_embeddings, false);
  const { head_dim, num_attention_heads, num_key_value_heads, vocab_size } = config;
  assert.deepEqual([head_dim, num_attention_heads, num_key_value_heads], [16, 4, 2]);
  assert.deepEqual([config.bos_token_id, config.eos_token_id, config.pad_token_id], [1, 0, null]);
  const tokenizer = JSON.parse(await readFile(join(directory, "tokenizer.json"), "utf8"));
  assert.equal(Object.keys(tokenizer.model.vocab).length, vocab_size);
  const tokenizerConfig = JSON.parse(
    await readFile(join(directory, "tokenizer_config.json"), "utf8"),
  );
  assert.equal(tokenizerConfig.bos_token, "<|start|>");
  assert.equal(
    tokenizerConfig.chat_template,
    await readFile(join(directory, "chat_template.jinja"), "utf8"),
  );
});

test("the rebuilt tokenizer gives the ids of the one that the GGUF was made from", async (t) => {
  const directory = join(await temporaryDirectory(t), "model");
  await importGguf(tiny, directory);
  const tokenizer = await loadTokenizer(directory);
  const cases = JSON.parse(await readFile(fixture("tiny-gguf", "tokens.json"), "utf8"));
  for (const { text, ids } of cases as { text: string; ids: number[] }[]) {
    assert.deepEqual([...(await tokenizer.encode(text))], ids, text);
    assert.equal(await tokenizer.decode(ids, { skipSpecialTokens: false }), text);
  }
});

test("rotary rows: neighbours of a head become its two halves", () => {
  const rows = Array.from({ length: 16 }, (_, row) => halfSplitRow(row, 8));
  assert.deepEqual(rows, [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15]);
});

test("Llama 3's frequency divisors are those of transformers", () => {
  // ROPE_INIT_FUNCTIONS["llama3"] of transformers 5.24: plain / scaled inverse frequencies of
  // theta 5e5, head size 128, factor 8.
  const expected = [1, 1.2075, 1.5534, 2.0263, 2.6945, 3.6843, 5.2573, 8];
  for (const [i, divisor] of expected.entries()) {
    const ours = llama3Divisor(500_000 ** ((-2 * (28 + i)) / 128), 8);
    assert.ok(Math.abs(ours - divisor) < 1e-4, `frequency ${28 + i}: ${ours}, not ${divisor}`);
  }
});

test("a directory that is not empty is kept, unless it may be overwritten", async (t) => {
  const directory = await temporaryDirectory(t);
  await writeFile(join(directory, "mine.txt"), "mine");
  await rejectsWith(importGguf(tiny, directory), "E_DIRECTORY_NOT_EMPTY");
  assert.deepEqual(await readdir(directory), ["mine.txt"]);
  await rejectsWith(importGguf(tiny, join(directory, "mine.txt")), "E_CHECKPOINT_WRITE");
  await importGguf(tiny, directory, undefined, { overwrite: true });
  assert.equal(await readFile(join(directory, "mine.txt"), "utf8"), "mine");
  await (await ModelWeights.open(directory)).close();
});

test("pre-tokenizers of the hub's files have the names that llama.cpp gives them", () => {
  const bytes = (more: object) => ({ type: "ByteLevel", add_prefix_space: false, ...more });
  const split = (digits: string) => ({
    type: "Split",
    pattern: {
      Regex: `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`,
    },
    ...{ behavior: "Isolated", invert: false },
  });
  const sequence = (...pretokenizers: object[]) => ({ type: "Sequence", pretokenizers });
  const plain = bytes({ trim_offsets: false, use_regex: false });
  const digits = { type: "Digits", individual_digits: true };
  assert.equal(preTokenizerName(bytes({ trim_offsets: true })), "gpt-2");
  assert.equal(preTokenizerName(sequence(digits, bytes({ use_regex: true }))), "smollm");
  assert.equal(preTokenizerName(sequence(split("\\p{N}"), plain)), "qwen2");
  assert.equal(preTokenizerName(sequence(split("\\p{N}{1,3}"), plain)), "llama-bpe");
  assert.equal(preTokenizerName(sequence(split("\\p{N}{1,2}"), plain)), undefined);
  assert.equal(preTokenizerName({ ...bytes({}), add_prefix_space: true }), undefined);
  assert.equal(preTokenizerName(null), undefined);
});
