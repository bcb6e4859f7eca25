import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { ModelWeights, writeSafetensors } from "#lib/checkpoint/index";
import {
  type SavedTensor,
  type TensorKeeper,
  writeModelWeights,
} from "#lib/checkpoint/written-weights";
import { temporaryDirectory } from "./support.js";

// How weights are divided into files where several processes write them.

const numRows = 64;
const valuesOf = (seed: number): Float32Array =>
  Float32Array.from({ length: numRows * 8 }, (_, i) => seed * 1_000 + i);
const names = ["a", "b", "c", "d", "e"];
/** Bytes of one. */
const tensorBytes = numRows * 8 * 4;

interface Written {
  readonly files: readonly string[];
  readonly asked: readonly string[];
  readonly map: Readonly<Record<string, string>>;
}

/**
 * @param keptBy by tensor the keeper that it begins with; undefined: none
 * @param refuses keepers that cannot write
 */
async function write(
  t: TestContext,
  keptBy: readonly (number | undefined)[],
  { maxShardBytes = tensorBytes * 3, refuses = [] as readonly number[] } = {},
): Promise<Written> {
  const directory = await temporaryDirectory(t);
  const asked: string[] = [];
  const tensors = names.map(
    (name, i): Omit<SavedTensor, "kept"> => ({
      ...{ name, shape: [numRows, 8], read: () => valuesOf(i) },
    }),
  );
  const keepers = [...new Set(keptBy)].map((index): TensorKeeper | undefined => {
    if (index === undefined) return undefined;
    const keeper: TensorKeeper = {
      index,
      write: async (file, kept, dtype) => {
        const of = kept.map(({ tensor, name }) => {
          assert.equal(name, names[tensor]);
          return name;
        });
        asked.push(`${index}: ${of.join("")}`);
        if (refuses.includes(index)) return false;
        assert.equal(dtype, "float32");
        await writeSafetensors(
          file,
          of.map((name) => ({ name, shape: [numRows, 8], dtype: "F32" })),
          (name) => new Uint8Array(valuesOf(names.indexOf(name)).buffer),
        );
        return true;
      },
    };
    return keeper;
  });
  const kept = tensors.map((tensor, i): SavedTensor => {
    const keeper = keepers.find((each) => each?.index === keptBy[i]);
    return { ...tensor, kept: keeper && { keeper, tensor: i } };
  });
  await writeModelWeights(directory, kept, { dtype: "float32", maxShardBytes });
  const weights = await ModelWeights.open(directory);
  assert.deepEqual(weights.names(), names);
  for (const [i, name] of names.entries()) {
    assert.deepEqual(await weights.readFloat32(name), valuesOf(i), name);
  }
  await weights.close();
  const files = readdirSync(directory).sort();
  const index = files.find((name) => name.endsWith(".index.json"));
  const { weight_map: map } =
    index === undefined
      ? { weight_map: {} }
      : (JSON.parse(readFileSync(join(directory, index), "utf8")) as {
          weight_map: Record<string, string>;
        });
  return { files: files.filter((name) => name !== index), asked: asked.sort(), map };
}

test("a file has what begins with its keeper, cut where it is too large; the rest comes last", async (t) => {
  const { files, asked, map } = await write(t, [0, 0, 2, undefined, 2], {
    maxShardBytes: tensorBytes,
  });
  assert.deepEqual(asked, ["0: a", "0: b", "2: c", "2: e"]);
  assert.deepEqual(
    files,
    [1, 2, 3, 4, 5].map((i) => `model-0000${i}-of-00005.safetensors`),
  );
  const order = ["a", "b", "c", "e", "d"].map((name, i) => [
    name,
    `model-0000${i + 1}-of-00005.safetensors`,
  ]);
  assert.deepEqual(map, Object.fromEntries(order));
});

test("names and borders are the same where a keeper cannot write", async (t) => {
  const keptBy = [0, 0, 0, 1, 1];
  const all = await write(t, keptBy);
  assert.equal(all.files.length, 2);
  for (const refuses of [[0], [1], [0, 1]]) {
    assert.deepEqual(await write(t, keptBy, { refuses }), all);
  }
});

test("few weights are one file, and one keeper divides them as nobody does", async (t) => {
  const small = await write(t, [0, 0, 1, 1, 1], { maxShardBytes: tensorBytes * 5 });
  assert.deepEqual([small.files, small.asked], [["model.safetensors"], []]);
  const nobody = await write(
    t,
    names.map(() => undefined),
  );
  const one = await write(
    t,
    names.map(() => 0),
  );
  assert.deepEqual([one.files, one.map], [nobody.files, nobody.map]);
  assert.deepEqual(one.asked, ["0: abc", "0: de"]);
  // What has a part of nobody's is written here.
  const mixed = await write(t, [0, 0, undefined, 0, 0]);
  assert.deepEqual([mixed.files, mixed.map, mixed.asked], [nobody.files, nobody.map, ["0: de"]]);
});

test("a keeper's error is the save's, when the others have ended", async (t) => {
  const directory = await temporaryDirectory(t);
  let hasEnded = false;
  const keeper = (index: number, writeFile: () => Promise<boolean>): TensorKeeper => ({
    ...{ index, write: writeFile },
  });
  const first = keeper(0, async () => {
    throw new Error("full");
  });
  const second = keeper(1, async () => {
    await new Promise(setImmediate);
    hasEnded = true;
    return true;
  });
  const tensors = [first, second].map((each, i) => ({
    ...{ name: names[i] as string, shape: [numRows, 8], read: () => valuesOf(i) },
    kept: { keeper: each, tensor: i },
  }));
  const options = { dtype: "float32", maxShardBytes: tensorBytes } as const;
  await assert.rejects(writeModelWeights(directory, tensors, options), /full/);
  assert.ok(hasEnded);
});
