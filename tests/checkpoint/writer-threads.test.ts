import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { writeModelDirectory, writeOptimizerState } from "#lib/checkpoint/index";
import type { OpenTarget } from "#lib/checkpoint/file-target";
import { WriterThreads } from "#lib/checkpoint/writer-threads";
import { temporaryDirectory } from "./support.js";

const sha256 = (file: string): string =>
  createHash("sha256").update(readFileSync(file)).digest("hex");

function shared(numElements: number, seed: number): Float32Array {
  const values = new Float32Array(new SharedArrayBuffer(numElements * 4));
  for (let i = 0; i < numElements; i++) values[i] = Math.fround(Math.sin(seed + i));
  return values;
}

const numElements = 700_000;
const shards = [
  {
    range: { start: 0, end: numElements },
    masters: shared(numElements, 1),
    states: { m: shared(numElements, 2) },
  },
  {
    range: { start: numElements, end: 2 * numElements },
    masters: shared(numElements, 3),
    states: { m: shared(numElements, 4) },
  },
];

async function threads(t: TestContext): Promise<WriterThreads> {
  const started = await WriterThreads.start(2);
  t.after(() => started.close());
  return started;
}

/** A model whose second tensor lies in two shards, and whose third in memory of this thread alone. */
async function write(directory: string, openTarget?: OpenTarget): Promise<void> {
  const source = join(directory, "source");
  mkdirSync(source, { recursive: true });
  writeFileSync(join(source, "config.json"), JSON.stringify({ model_type: "llama" }));
  const [first, second] = shards.map(({ masters }) => masters) as [Float32Array, Float32Array];
  const tensors = [
    { name: "a", shape: [100, 100], read: () => first.subarray(0, 10_000) },
    {
      name: "b",
      shape: [numElements],
      read: () => ({
        parts: [first.subarray(300_000), second.subarray(0, 300_000)],
        finiteAfterStep: 1,
      }),
    },
    { name: "c", shape: [50], read: async () => Float32Array.from(first.subarray(7, 57)) },
  ];
  const target = join(directory, "written");
  mkdirSync(target);
  const options = { sourceDir: source, tensors, maxShardBytes: 1_000_000 } as const;
  await Promise.all([
    writeModelDirectory(target, { ...options, dtype: "bfloat16", openTarget }),
    writeOptimizerState(target, shards, { "t.rows": first.slice(0, 9) }, openTarget),
  ]);
}

test("threads write the bytes that this thread writes, and know their checksums", async (t) => {
  const [here, there] = [await temporaryDirectory(t), await temporaryDirectory(t)];
  await write(here);
  const writers = await threads(t);
  await write(there, writers.openTarget);
  const names = readdirSync(join(here, "written"));
  assert.ok(names.length > 5);
  assert.deepEqual(readdirSync(join(there, "written")), names);
  for (const name of names) {
    assert.equal(sha256(join(there, "written", name)), sha256(join(here, "written", name)), name);
  }
  assert.ok(writers.written.size >= 4);
  for (const [file, written] of writers.written) {
    assert.equal(written.sha256, sha256(file), file);
  }
});

test("what a thread refuses is the error of the catalogue", async (t) => {
  const directory = await temporaryDirectory(t);
  writeFileSync(join(directory, "config.json"), JSON.stringify({ model_type: "llama" }));
  const { openTarget } = await threads(t);
  const values = shared(1_000, 1);
  const saved = (into: string, at = values, dtype: "float16" | "bfloat16" = "bfloat16") =>
    writeModelDirectory(into, {
      ...{ sourceDir: directory, dtype, openTarget },
      tensors: [{ name: "a", shape: [1_000], read: () => ({ parts: [at], finiteAfterStep: 7 }) }],
    });
  values[500] = Number.NaN;
  await assert.rejects(saved(directory), {
    code: "E_NON_FINITE_WEIGHTS",
    details: { step: 7, tensor: "a", value: Number.NaN },
  });
  values[500] = 1e38;
  await assert.rejects(saved(directory, values, "float16"), { code: "E_TENSOR_RANGE" });
  await saved(directory);
  await assert.rejects(writeOptimizerState(join(directory, "missing"), shards, {}, openTarget), {
    code: "E_CHECKPOINT_WRITE",
  });
});
