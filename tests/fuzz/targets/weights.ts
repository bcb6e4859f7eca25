import assert from "node:assert/strict";
import fs from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { GgufFile } from "#lib/checkpoint/gguf/reader";
import { importGguf, ModelWeights, openSafetensors, writeSafetensors } from "#lib/checkpoint/index";
import { type StoredDtype, storedDtypeBytes } from "#lib/checkpoint/safetensors-header";
import type { Draw } from "#tests/fuzz/draw";
import { mutateJson } from "#tests/fuzz/json-mutations";
import { property, type Target } from "#tests/fuzz/target";
import { GgufBuilder } from "#tests/checkpoint/gguf-builder";
import { closing, copyFixture, fixture, inFile, readFixture } from "./files.js";

const floats: ReadonlySet<string> = new Set(["F32", "F16", "BF16"]);

async function readSafetensors(file: string): Promise<void> {
  const opened = await openSafetensors(file);
  await closing(opened, async () => {
    for (const [name, { dtype, numElements }] of opened.tensors) {
      await opened.readBytes(name);
      if (!floats.has(dtype)) continue;
      await opened.readFloat32(name);
      const start = Math.floor(numElements / 3);
      await opened.readFloat32(name, undefined, { start, count: numElements - start });
    }
  });
}

/** Changes the header as JSON and writes its length before it, so that the header itself is looked at. */
function lyingHeader(draw: Draw, corpus: readonly Uint8Array[]): Uint8Array {
  const valid = Buffer.from(draw.pick(corpus));
  const headerBytes = Number(valid.readBigUInt64LE(0));
  const header = mutateJson(valid.subarray(8, 8 + headerBytes), draw);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  const data = valid.subarray(8 + headerBytes);
  return Buffer.concat([length, header, draw.oneIn(4) ? data.subarray(draw.below(64)) : data]);
}

const safetensors: Target = {
  name: "weights/safetensors",
  share: 4,
  open: async (folder) => ({
    kind: "bytes",
    form: "bytes",
    corpus: [
      readFixture("huggingface", "min", "adapter_model.safetensors"),
      readFixture("sharded-gpt2", "model-00002-of-00005.safetensors"),
      readFixture("lora", "bert-seqcls", "adapter_model.safetensors"),
    ],
    generate: lyingHeader,
    read: inFile(join(folder, "a.safetensors"), readSafetensors),
  }),
};

const dtypes = Object.keys(storedDtypeBytes) as StoredDtype[];
const tensor = fc.record({
  name: fc.string({ minLength: 1, maxLength: 20 }).filter((name) => name !== "__metadata__"),
  dtype: fc.constantFrom(...dtypes),
  shape: fc.array(fc.nat(5), { maxLength: 4 }),
  fill: fc.nat(255),
});

const safetensorsRoundTrip = property(
  "weights/safetensors-written",
  1,
  fc.uniqueArray(tensor, { selector: ({ name }) => name, maxLength: 8 }),
  async (tensors, folder) => {
    const file = join(folder, "written.safetensors");
    const contents = new Map(
      tensors.map(({ name, dtype, shape, fill }) => {
        const numElements = shape.reduce((product, size) => product * size, 1);
        return [name, new Uint8Array(numElements * storedDtypeBytes[dtype]).fill(fill)];
      }),
    );
    await writeSafetensors(file, tensors, (name) => contents.get(name) ?? new Uint8Array(0));
    const opened = await openSafetensors(file);
    await closing(opened, async () => {
      assert.equal(opened.tensors.size, tensors.length);
      for (const { name, dtype, shape } of tensors) {
        const { dtype: readDtype, shape: readShape } = opened.info(name);
        assert.deepEqual([readDtype, [...readShape]], [dtype, shape]);
        assert.deepEqual(await opened.readBytes(name), contents.get(name));
      }
    });
  },
);

const weightsIndex: Target = {
  name: "weights/weights-index",
  share: 2,
  async open(folder) {
    const from = fixture("sharded-gpt2");
    const shards = fs.readdirSync(from).filter((name) => name.endsWith(".safetensors"));
    copyFixture(from, folder, [...shards, "config.json"]);
    return {
      kind: "bytes",
      form: "json",
      corpus: [readFixture("sharded-gpt2", "model.safetensors.index.json")],
      read: inFile(join(folder, "model.safetensors.index.json"), async () => {
        const weights = await ModelWeights.open(folder);
        await closing(weights, async () => {
          for (const name of weights.names()) await weights.readFloat32(name);
        });
      }),
    };
  },
};

/** Entries and tensors that are well-formed one by one. */
function builtGguf(draw: Draw): Uint8Array {
  const builder = new GgufBuilder();
  const huge = (): number | bigint => draw.pick([0, 1, 7, 1e6, 2 ** 31, 2n ** 40n, 2n ** 62n]);
  const numEntries = draw.below(6);
  const numTensors = draw.below(4);
  const declared = draw.oneIn(4) ? huge() : numEntries;
  builder.preamble(draw.oneIn(4) ? huge() : numTensors, declared, draw.pick([2, 3, 3, 3]));
  const keys = ["general.alignment", "general.architecture", "llama.block_count", "k", ""];
  for (let i = 0; i < numEntries; i++) {
    const key = draw.pick(keys);
    builder.string(draw.oneIn(2) ? `${key}${i}` : key);
    const type = draw.below(14);
    builder.uint32(type);
    if (type === 8) builder.string("llama");
    else if (type === 9) {
      const numElements = draw.pick([0, 1, 3, 100]);
      builder.uint32(draw.below(13)).uint64(draw.oneIn(4) ? huge() : numElements);
      for (let each = 0; each < numElements; each++) builder.uint64(each);
    } else if (type >= 10) builder.uint64(draw.uint32());
    else if (type >= 4 && type <= 6) builder.uint32(draw.pick([0, 1, 32, 2 ** 20, draw.uint32()]));
    else builder.bytes(...Array.from({ length: [1, 1, 2, 2][type] ?? 1 }, () => draw.below(256)));
  }
  for (let i = 0; i < numTensors; i++) {
    const dims = Array.from({ length: draw.below(5) }, () => (draw.oneIn(3) ? huge() : 32));
    const offset = draw.oneIn(3) ? huge() : i * 4096;
    builder.tensor(draw.pick(["x", `y${i}`, ""]), dims, draw.pick([0, 1, 2, 8, 30, 99]), offset);
  }
  return builder.build(draw.pick([0, 1, 4096, 65_536]));
}

const gguf: Target = {
  name: "weights/gguf",
  share: 2,
  async open(folder) {
    const out = join(folder, "out");
    return {
      kind: "bytes",
      form: "bytes",
      corpus: [
        readFixture("tiny-gguf-sentencepiece", "tiny.gguf"),
        readFixture("tiny-gguf", "tiny.gguf"),
      ],
      generate: builtGguf,
      read: inFile(join(folder, "a.gguf"), async (file) => {
        const opened = await GgufFile.open(file);
        await opened.close();
        await importGguf(file, out, undefined, { overwrite: true });
      }),
    };
  },
};

export const targets: readonly Target[] = [safetensors, safetensorsRoundTrip, weightsIndex, gguf];
