import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { OptimizerStateReader, writeOptimizerState } from "#lib/checkpoint/index";
import { rejectsWith, temporaryDirectory } from "./support.js";

const numElements = 1000;
const element = (tensor: number, i: number): number => tensor * 10_000 + i;
const part = (tensor: number, start: number, end: number): Float32Array =>
  Float32Array.from({ length: end - start }, (_, i) => element(tensor, start + i));

const stateOf = (start: number, end: number) => ({
  range: { start, end },
  masters: part(1, start, end),
  firstMoment: part(2, start, end),
  secondMoment: part(3, start, end),
});

test("a state of three shards is read by any other number of shards", async (t) => {
  const directory = await temporaryDirectory(t);
  // The middle shard is empty, as one of few blocks may be.
  await writeOptimizerState(directory, [
    stateOf(0, 300),
    stateOf(300, 300),
    stateOf(300, numElements),
  ]);
  const reader = await OptimizerStateReader.open(directory);
  t.after(() => reader.close());
  assert.equal(reader.numElements, numElements);
  for (const [start, end] of [
    [0, 1000],
    [0, 250],
    [250, 500],
    [299, 301],
    [999, 1000],
    [5, 5],
  ] as const) {
    for (const [i, name] of (["masters", "first_moment", "second_moment"] as const).entries()) {
      const into = new Float32Array(end - start);
      await reader.readRange(name, { start, end }, into);
      assert.deepEqual(into, part(i + 1, start, end));
    }
  }
});

test("missing or mixed parts are refused", async (t) => {
  const directory = await temporaryDirectory(t);
  await rejectsWith(OptimizerStateReader.open(directory), "E_CHECKPOINT_DAMAGED", /missing/);
  await writeOptimizerState(directory, [stateOf(0, 300), stateOf(300, 600)]);
  await rm(join(directory, "optimizer-00001-of-00002.safetensors"));
  await rejectsWith(
    OptimizerStateReader.open(directory),
    "E_CHECKPOINT_DAMAGED",
    /not part 1 of 1/,
  );
  await writeOptimizerState(directory, [stateOf(0, 300), stateOf(400, 600)]);
  await rejectsWith(OptimizerStateReader.open(directory), "E_CHECKPOINT_DAMAGED", /continue/);
});
