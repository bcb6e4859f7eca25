import assert from "node:assert/strict";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { halfSplitRow } from "#lib/checkpoint/gguf/decode";
import { GgufFile } from "#lib/checkpoint/gguf/reader";
import { llama3Divisor } from "#lib/checkpoint/gguf/rope";
import { importGguf, ModelWeights } from "#lib/checkpoint/index";
import { bfloat16ToFloat32, float32ToBfloat16 } from "#lib/core/bf16";
import { isLockstepError } from "#lib/core/errors/index";
import { loadTokenizer } from "#lib/data/index";
import { GgufBuilder } from "./gguf-builder.js";
import { fixture, rejectsWith, temporaryDirectory, temporaryFile } from "./support.js";

const tiny = fixture("tiny-gguf", "tiny.gguf");

test("every tensor type is imported to the bit as the gguf package dequantises it", async (t) => {
  const directory = join(await temporaryDirectory(t), "model");
  const steps: number[] = [];
  const { numParameters } = await importGguf(tiny, directory, (p) => steps.push(p.parametersDone));
  const ours = await ModelWeights.open(directory);
  t.after(() => ours.close());
  const { SafetensorsFile } = await import("#lib/checkpoint/index");
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
  const { SafetensorsFile } = await import("#lib/checkpoint/index");
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
  await importGguf(tiny, directory, undefined, { overwrite: true });
  assert.equal(await readFile(join(directory, "mine.txt"), "utf8"), "mine");
  await (await ModelWeights.open(directory)).close();
});

const build = (): GgufBuilder => new GgufBuilder();
const huge = 2n ** 62n;
const f32 = 0;
const hostile: readonly [string, Buffer, Parameters<typeof rejectsWith>[1], RegExp][] = [
  ["an empty file", Buffer.alloc(0), "E_GGUF_FORMAT", /4 more bytes/],
  ["another magic", Buffer.from("GGML0000000000000000000"), "E_GGUF_FORMAT", /letters GGUF/],
  ["version 1", build().preamble(0, 0, 1).build(), "E_GGUF_FORMAT", /version 1/],
  ["big-endian order", build().preamble(0, 0, 0x03000000).build(), "E_GGUF_FORMAT", /big-endian/],
  ["2^62 tensors", build().preamble(huge, 0).build(), "E_GGUF_FORMAT", /number of tensors is 4611/],
  ["2^62 entries", build().preamble(0, huge).build(), "E_GGUF_FORMAT", /metadata entries is 4611/],
  ["entries that are not there", build().preamble(0, 9).build(), "E_GGUF_FORMAT", /8 more bytes/],
  [
    "a key of 2^62 bytes",
    build().preamble(0, 1).uint64(huge).build(),
    "E_GGUF_FORMAT",
    /metadata key is 4611/,
  ],
  [
    "a string longer than the file",
    build().preamble(0, 1).string("k").uint32(8).uint64(1e6).build(),
    "E_GGUF_FORMAT",
    /claims 1000000 bytes, but only 0/,
  ],
  [
    "a string of 2^62 bytes",
    build().preamble(0, 1).string("k").uint32(8).uint64(huge).build(),
    "E_GGUF_FORMAT",
    /at most 4194304/,
  ],
  [
    "an array of 2^62 elements",
    build().preamble(0, 1).string("k").uint32(9).uint32(8).uint64(huge).build(),
    "E_GGUF_FORMAT",
    /at most 4000000/,
  ],
  [
    "an array longer than the file",
    build().preamble(0, 1).string("k").uint32(9).uint32(8).uint64(3e6).build(),
    "E_GGUF_FORMAT",
    /claims 3000000 elements/,
  ],
  [
    "arrays in arrays",
    build().preamble(0, 1).string("k").uint32(9).uint32(9).uint64(1).build(),
    "E_GGUF_FORMAT",
    /array of arrays/,
  ],
  [
    "an unknown value type",
    build().preamble(0, 1).string("k").uint32(99).build(),
    "E_GGUF_FORMAT",
    /type code 99/,
  ],
  [
    "an unknown element type",
    build().preamble(0, 1).string("k").uint32(9).uint32(99).uint64(1).build(),
    "E_GGUF_FORMAT",
    /type code 99/,
  ],
  [
    "a key twice",
    build().preamble(0, 2).string("k").uint32(7).bytes(1).string("k").uint32(7).bytes(1).build(),
    "E_GGUF_FORMAT",
    /"k" appears twice/,
  ],
  [
    "an alignment of 3",
    build().preamble(0, 1).string("general.alignment").uint32(4).uint32(3).build(),
    "E_GGUF_FORMAT",
    /alignment is 3/,
  ],
  [
    "an alignment of 2 GiB",
    build()
      .preamble(0, 1)
      .string("general.alignment")
      .uint32(4)
      .uint32(2 ** 31)
      .build(),
    "E_GGUF_FORMAT",
    /alignment is 2147483648/,
  ],
  [
    "no dimensions",
    build().preamble(1, 0).tensor("x", [], f32, 0).build(64),
    "E_GGUF_FORMAT",
    /0 dimensions/,
  ],
  [
    "nine dimensions",
    build().preamble(1, 0).tensor("x", Array(9).fill(1), f32, 0).build(64),
    "E_GGUF_FORMAT",
    /9 dimensions/,
  ],
  [
    "a dimension of 0",
    build().preamble(1, 0).tensor("x", [0], f32, 0).build(64),
    "E_GGUF_FORMAT",
    /no sensible product/,
  ],
  [
    "a product that overflows",
    build()
      .preamble(1, 0)
      .tensor("x", [2 ** 40, 2 ** 40], f32, 0)
      .build(64),
    "E_GGUF_FORMAT",
    /no sensible product/,
  ],
  [
    "a dimension of 2^62",
    build().preamble(1, 0).tensor("x", [huge], f32, 0).build(64),
    "E_GGUF_FORMAT",
    /dimension of tensor "x" is 4611/,
  ],
  [
    "more data than the file",
    build()
      .preamble(1, 0)
      .tensor("x", [2 ** 30], f32, 0)
      .build(64),
    "E_GGUF_FORMAT",
    /but the file has/,
  ],
  [
    "an offset after the end",
    build()
      .preamble(1, 0)
      .tensor("x", [4], f32, 2 ** 40)
      .build(64),
    "E_GGUF_FORMAT",
    /but the file has/,
  ],
  [
    "an offset of 2^62",
    build().preamble(1, 0).tensor("x", [4], f32, huge).build(64),
    "E_GGUF_FORMAT",
    /offset of tensor "x" is 4611/,
  ],
  [
    "an offset off the alignment",
    build().preamble(1, 0).tensor("x", [4], f32, 4).build(64),
    "E_GGUF_FORMAT",
    /not aligned/,
  ],
  [
    "overlapping tensors",
    build().preamble(2, 0).tensor("x", [16], f32, 0).tensor("y", [16], f32, 32).build(96),
    "E_GGUF_FORMAT",
    /"y" overlaps/,
  ],
  [
    "a tensor twice",
    build().preamble(2, 0).tensor("x", [8], f32, 0).tensor("x", [8], f32, 32).build(64),
    "E_DUPLICATE_TENSOR",
    /"x" twice/,
  ],
  [
    "a row of half a block",
    build().preamble(1, 0).tensor("x", [16], 8, 0).build(64),
    "E_GGUF_FORMAT",
    /no whole blocks of Q8_0/,
  ],
  [
    "a type that is not read",
    build().preamble(1, 0).tensor("x", [256], 12, 0).build(256),
    "E_GGUF_TENSOR_TYPE",
    /stored as Q4_K; only F32, F16, BF16, Q8_0, Q4_0, Q4_1/,
  ],
  [
    "a type that nobody knows",
    build().preamble(1, 0).tensor("x", [256], 77, 0).build(256),
    "E_GGUF_TENSOR_TYPE",
    /type 77/,
  ],
];
for (const [what, bytes, code, message] of hostile) {
  test(`refused with a clear error: ${what}`, async (t) => {
    await rejectsWith(GgufFile.open(await temporaryFile(t, "hostile.gguf", bytes)), code, message);
  });
}

/** The tiny file with one occurrence of `from` replaced by `to`, of equal length. */
async function patched(from: string | Uint8Array, to: string | Uint8Array): Promise<Buffer> {
  const bytes = await readFile(tiny);
  const at = bytes.indexOf(from);
  assert.ok(at >= 0 && Buffer.from(from).length === Buffer.from(to).length);
  Buffer.from(to).copy(bytes, at);
  return bytes;
}
const uint32Entry = (key: string, value: number): Uint8Array => {
  const code = Buffer.alloc(8);
  code.writeUInt32LE(4, 0);
  code.writeUInt32LE(value, 4);
  return Buffer.concat([Buffer.from(key), code]);
};
const unusable: readonly [
  string,
  () => Promise<Buffer>,
  Parameters<typeof rejectsWith>[1],
  RegExp,
][] = [
  [
    "another architecture",
    () => patched("llama\u0011", "gemma\u0011"),
    "E_GGUF_ARCHITECTURE",
    /"gemma"/,
  ],
  [
    "a missing tensor",
    () => patched("blk.0.attn_v.weight", "blk.1.attn_v.weight"),
    "E_TENSOR_MISSING",
    /blk.0.attn_v.weight/,
  ],
  [
    "a missing key",
    () => patched("llama.block_count", "llama.block_kount"),
    "E_GGUF_METADATA",
    /llama.block_count" is missing/,
  ],
  [
    "heads that do not divide",
    () => patched(uint32Entry("head_count", 4), uint32Entry("head_count", 3)),
    "E_GGUF_METADATA",
    /head/,
  ],
  [
    "a billion layers",
    () => patched(uint32Entry("block_count", 1), uint32Entry("block_count", 1e9)),
    "E_GGUF_METADATA",
    /outside 1 to 4096/,
  ],
  [
    "one layer too many",
    () => patched(uint32Entry("block_count", 1), uint32Entry("block_count", 2)),
    "E_TENSOR_MISSING",
    /blk.1/,
  ],
  [
    "shapes of another width",
    () => patched(uint32Entry("feed_forward_length", 96), uint32Entry("feed_forward_length", 64)),
    "E_GGUF_TENSOR",
    /\[96, 64\], but the metadata asks for \[64, 64\]/,
  ],
  [
    "an unknown pre-tokenizer",
    () => patched("smollm", "smelly"),
    "E_GGUF_TOKENIZER",
    /"smelly" is not known; known are gpt-2, smollm/,
  ],
  ["another tokenizer model", () => patched("gpt2", "bert"), "E_GGUF_TOKENIZER", /"bert"/],
  [
    "a merge of unknown tokens",
    () => patched("t h", "t~h"),
    "E_GGUF_TOKENIZER",
    /merge 0|merge \d+/,
  ],
  [
    "an end token out of range",
    () => patched(uint32Entry("eos_token_id", 0), uint32Entry("eos_token_id", 5000)),
    "E_GGUF_METADATA",
    /eos_token_id" is 5000/,
  ],
];
for (const [what, bytes, code, message] of unusable) {
  test(`refused with a clear error, and nothing is written: ${what}`, async (t) => {
    const directory = await temporaryDirectory(t);
    const file = join(directory, "patched.gguf");
    await writeFile(file, await bytes());
    await rejectsWith(importGguf(file, join(directory, "out")), code, message);
    assert.deepEqual(await readdir(directory), ["patched.gguf"]);
  });
}

test("any truncation or mutation of a file parses, or fails with an error of the catalogue", async (t) => {
  const valid = await readFile(tiny);
  const headerBytes = valid.indexOf("ffn_norm.weight") + 40;
  const directory = await temporaryDirectory(t);
  const file = join(directory, "mutated.gguf");
  const edit = fc.record({ at: fc.nat(headerBytes), byte: fc.nat(255) });
  const early = fc.record({ at: fc.nat(900), byte: fc.constantFrom(0, 1, 9, 12, 127, 255) });
  const mutation = fc.record({
    edits: fc.array(fc.oneof(edit, early), { maxLength: 3 }),
    length: fc.oneof(fc.constant(valid.length), fc.nat(valid.length)),
  });
  let numImported = 0;
  await fc.assert(
    fc.asyncProperty(mutation, async ({ edits, length }) => {
      const bytes = Buffer.from(valid);
      for (const { at, byte } of edits) bytes[at] = byte;
      await writeFile(file, bytes.subarray(0, length));
      try {
        await importGguf(file, join(directory, "out"), undefined, { overwrite: true });
        numImported++;
      } catch (error) {
        assert.ok(isLockstepError(error), `not of the catalogue: ${(error as Error).stack}`);
      }
    }),
    { numRuns: 300 },
  );
  assert.ok(numImported > 0, "files with harmless changes are among the cases");
});
