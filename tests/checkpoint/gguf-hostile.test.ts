import assert from "node:assert/strict";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { GgufFile } from "#lib/checkpoint/gguf/reader";
import { importGguf } from "#lib/checkpoint/index";
import { isLockstepError } from "#lib/core/errors/index";
import { GgufBuilder } from "./gguf-builder.js";
import { fixture, rejectsWith, temporaryDirectory, temporaryFile } from "./support.js";

const tiny = fixture("tiny-gguf", "tiny.gguf");

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
