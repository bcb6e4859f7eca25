import assert from "node:assert/strict";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { type FileTarget, openLocalTarget } from "#lib/checkpoint/file-target";
import { OptimizerStateReader, writeOptimizerState } from "#lib/checkpoint/index";
import { rejectsWith, temporaryDirectory } from "./support.js";

const numElements = 1000;
const element = (tensor: number, i: number): number => tensor * 10_000 + i;
const part = (tensor: number, start: number, end: number): Float32Array =>
  Float32Array.from({ length: end - start }, (_, i) => element(tensor, start + i));

const stateOf = (start: number, end: number) => ({
  range: { start, end },
  masters: part(1, start, end),
  states: { first_moment: part(2, start, end), second_moment: part(3, start, end) },
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
    const into = new Float32Array(end - start);
    await reader.readMasters({ start, end }, into);
    assert.deepEqual(into, part(1, start, end));
    const states = { second_moment: into.slice(), first_moment: into.slice() };
    await reader.readStates({ start, end }, states);
    assert.deepEqual(states, {
      first_moment: part(2, start, end),
      second_moment: part(3, start, end),
    });
  }
});

test("few files of many shards are being written at a time", async (t) => {
  const directory = await temporaryDirectory(t);
  const [numShards, size] = [20, 50];
  const shards = Array.from({ length: numShards }, (_, i) => stateOf(i * size, (i + 1) * size));
  let [numOpen, most] = [0, 0];
  await writeOptimizerState(directory, shards, {}, async (file): Promise<FileTarget> => {
    const target = await openLocalTarget(file);
    numOpen += 1;
    most = Math.max(most, numOpen);
    return {
      write: (bytes) => target.write(bytes),
      writeElements: (elements) => target.writeElements(elements),
      abandon: () => target.abandon(),
      close: async () => {
        numOpen -= 1;
        return target.close();
      },
    };
  });
  assert.equal(most, 4);
  const reader = await OptimizerStateReader.open(directory);
  t.after(() => reader.close());
  const into = new Float32Array(numElements);
  await reader.readMasters({ start: 0, end: numElements }, into);
  assert.deepEqual(into, part(1, 0, numElements));
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

test("the state of an optimizer that keeps something else is refused by name", async (t) => {
  const directory = await temporaryDirectory(t);
  await writeOptimizerState(directory, [stateOf(0, numElements)]);
  const reader = await OptimizerStateReader.open(directory);
  t.after(() => reader.close());
  const array = new Float32Array(numElements);
  for (const [states, inWords] of [
    [{ momentum_buffer: array }, "momentum_buffer"],
    [{}, "nothing"],
    [{ first_moment: array }, "first_moment"],
  ] as const) {
    await rejectsWith(
      reader.readStates({ start: 0, end: numElements }, states),
      "E_RESUME_MISMATCH",
      new RegExp(`kept first_moment and second_moment, the run's keeps ${inWords}`),
    );
  }
});

test("parts that keep other arrays than the first are refused", async (t) => {
  const kept = { range: { start: 300, end: 600 }, masters: part(1, 300, 600) };
  for (const states of [{}, { ...stateOf(300, 600).states, third: part(4, 300, 600) }]) {
    const directory = await temporaryDirectory(t);
    await writeOptimizerState(directory, [stateOf(0, 300), { ...kept, states }]);
    await rejectsWith(
      OptimizerStateReader.open(directory),
      "E_CHECKPOINT_DAMAGED",
      /00002-of-00002.* (has no first_moment|keeps more)/,
    );
  }
});
