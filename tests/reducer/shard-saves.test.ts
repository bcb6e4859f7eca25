import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { startMirrored } from "#coordinator/reducer/mirrored-shard";
import { startRemoteShards } from "#coordinator/reducer/remote-shard";
import { ShardGroup, type ShardSource } from "#coordinator/shards";
import { encodeElements } from "#lib/checkpoint/elements";
import { openSafetensors, writeSafetensors } from "#lib/checkpoint/index";
import { hostPort } from "#lib/core/address";
import {
  blockElements,
  buildParameterLayout,
  type ParameterLayout,
} from "#lib/core/parameter-layout";
import type { SavedFile, SavedTensors, ShardFileWriter } from "#lib/core/saved-files";
import type { DistantArray } from "#lib/core/shard-arrays";
import { emaSlot } from "#lib/optim/index";
import { BulkClient } from "#lib/wire/bulk-client";
import { peerName } from "#lib/wire/reducer-messages";
import { saveShardTensors } from "#reducer/save-files";
import { type RunningReducer, startReducer } from "#reducer/start-reducer";
import { EventRecorder } from "#tests/support/cluster";
import { testValues } from "#tests/support/compare";
import { admitTo, passOf, testLife } from "#tests/support/members";
import { mountSmallDisk } from "#tests/support/small-disk";
import { adamW } from "./gradients.js";

// Processes of shards, in this process, that write files of a model.

/** The first tensor lies in three shards of four, the second in two. */
const layout: ParameterLayout = buildParameterLayout(
  [
    { name: "wide", shape: [5, blockElements - 32] },
    { name: "narrow", shape: [64, 32] },
    { name: "vector", shape: [1_000] },
  ],
  "bfloat16",
);
const numShards = 4;
const secret = "of the run's coordinators";
const average = (values: Float32Array): Float32Array => values.map((value) => value / 2);
const values = testValues(layout.numElements, 1);
const fill: ShardSource["fill"] = async ({ range, masters, states }) => {
  masters.set(values.subarray(range.start, range.end));
  states[emaSlot]?.set(average(masters));
};

const groupOptions = {
  ...{ numShards, layout, gradientGroups: 1, listenHost: "127.0.0.1", security: {} },
  ...{ optimizer: { ...adamW, emaDecay: 0.5 }, life: testLife },
};

const reducersOf = (t: TestContext, count: number): Promise<readonly RunningReducer[]> =>
  Promise.all(
    Array.from({ length: count }, async () => {
      const reducer = await startReducer({
        ...{ listenHost: "127.0.0.1", listenPort: 0, security: {}, idleTimeoutMs: 0 },
        log: () => {},
      });
      t.after(() => reducer.close());
      return reducer;
    }),
  );

interface Shards {
  readonly reducers: readonly RunningReducer[];
  readonly group: ShardGroup;
  readonly notes: string[];
}

async function shardsOf(
  t: TestContext,
  {
    reducers: given,
    epoch = 1,
    timeoutMs = 20_000,
  }: {
    readonly reducers?: readonly RunningReducer[];
    readonly epoch?: number;
    readonly timeoutMs?: number;
  } = {},
): Promise<Shards> {
  const notes: string[] = [];
  const reducers = given ?? (await reducersOf(t, numShards));
  const addresses = reducers.map(({ port }) => hostPort("127.0.0.1", port));
  const note = (text: string): void => void notes.push(text);
  const group = await ShardGroup.start(startRemoteShards(addresses, { secret, timeoutMs, note }), {
    ...groupOptions,
    life: { ...testLife, epoch },
  });
  t.after(() => group.close());
  if (given === undefined) await group.load({ fill }, 3);
  return { reducers, group, notes };
}

function placeIn(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), "lockstep-saves-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const place = join(directory, ".checkpoint-3.tmp-1-0123456789ab");
  mkdirSync(place);
  return place;
}

async function writerOf(group: ShardGroup, shard: number): Promise<ShardFileWriter> {
  const writer = (await group.finalState())[shard]?.files;
  assert.ok(writer !== undefined);
  return writer;
}

const contentOf = (tensors: readonly number[], more: Partial<SavedTensors> = {}): SavedTensors => ({
  ...{ array: "masters", dtype: "bfloat16", finiteAfterStep: 3 },
  tensors: tensors.map((tensor) => ({ tensor, name: `a.${layout.tensors[tensor]?.name}` })),
  ...more,
});

/** The same file, out of memory. */
async function expectedFile(
  file: string,
  content: SavedTensors,
  of: Float32Array,
): Promise<Buffer> {
  const slots = new Map(content.tensors.map(({ tensor, name }) => [name, layout.tensors[tensor]]));
  await writeSafetensors(
    file,
    content.tensors.map(({ tensor, name }) => ({
      ...{ name, shape: layout.tensors[tensor]?.shape ?? [] },
      dtype: content.dtype === "bfloat16" ? "BF16" : "F32",
    })),
    (name) => {
      const { offset = 0, size = 0 } = slots.get(name) ?? {};
      return encodeElements(of.subarray(offset, offset + size), content.dtype, name);
    },
  );
  return readFileSync(file);
}

const sha256 = (bytes: Buffer): string => createHash("sha256").update(bytes).digest("hex");

test("a tensor that three shards keep is in the file of the first, and others where they begin", async (t) => {
  const { group, notes } = await shardsOf(t);
  const place = placeIn(t);
  for (const [shard, content, of] of [
    [0, contentOf([0]), values],
    [0, contentOf([0], { dtype: "float32" }), values],
    [0, contentOf([0], { array: "average" }), average(values)],
    [2, contentOf([1]), values],
    [3, contentOf([2]), values],
  ] as const) {
    const file = join(place, "model-00001-of-00002.safetensors");
    const saved = (await (
      await writerOf(group, shard)
    ).saveTensors({ file }, content)) as SavedFile;
    const bytes = readFileSync(file);
    assert.deepEqual(bytes, await expectedFile(join(place, "expected"), content, of));
    assert.deepEqual([saved.sizeBytes, saved.sha256], [bytes.length, sha256(bytes)]);
    assert.equal(saved.pieces.length, 8 * Math.ceil(bytes.length / (1 << 20)));
  }
  assert.deepEqual(notes, []);
});

test("only what begins there is written, of arrays that are kept, where a checkpoint is being written", async (t) => {
  const { group } = await shardsOf(t);
  const place = placeIn(t);
  const file = join(place, "model.safetensors");
  const [first, second] = [await writerOf(group, 0), await writerOf(group, 1)];
  const invalid = { code: "E_MESSAGE_INVALID" };
  await assert.rejects(second.saveTensors({ file }, contentOf([0])), invalid);
  await assert.rejects(first.saveTensors({ file }, contentOf([1])), invalid);
  await assert.rejects(first.saveTensors({ file }, contentOf([9])), invalid);
  const files = { code: "E_REDUCER_FILES" };
  await assert.rejects(first.saveTensors({ file: join(place, "x") }, contentOf([0])), files);
  await assert.rejects(
    first.saveTensors({ file: "/etc/model.safetensors" }, contentOf([0])),
    files,
  );
  assert.ok(!existsSync(file));
});

test("workers, and who shows nothing of the coordinator's, fetch nothing of what shards keep", async (t) => {
  const { reducers, group } = await shardsOf(t);
  await admitTo(group);
  // Admits shard 0 to the others.
  await (await writerOf(group, 0)).saveTensors(
    { file: join(placeIn(t), "model.safetensors") },
    contentOf([0]),
  );
  const address = hostPort("127.0.0.1", (reducers[1] as RunningReducer).port);
  const part = { offset: 0, numBytes: 4 };
  for (const pass of [
    passOf(),
    { ...passOf(), workerId: peerName(0), secret: "a guess" },
    { ...passOf(), workerId: peerName(2), secret: "a guess" },
  ]) {
    const client = new BulkClient({ address, security: {}, pass });
    for (const space of ["masters", "average", "kept"] as const) {
      const pulled = client.pullParameters({ space, version: 3, part }, new Uint8Array(4));
      await assert.rejects(pulled, /E_UNKNOWN_WORKER|worker|member/i, `${pass.workerId} ${space}`);
    }
    client.close();
  }
});

test("what a process cannot do is left to the coordinator, and told once", async (t) => {
  const { group, notes } = await shardsOf(t);
  const writer = await writerOf(group, 0);
  // A directory that only the coordinator sees.
  const file = join("/nowhere/.checkpoint-3.tmp-1-0123456789ab", "model.safetensors");
  for (let i = 0; i < 2; i++) {
    assert.equal(await writer.saveTensors({ file }, contentOf([0])), undefined);
  }
  assert.equal(notes.length, 1);
  assert.match(notes[0] ?? "", /^shard 0 at \S+ cannot write into output_dir, so the coordinator/);
  // Credentials are this process's, and it has none.
  const before = { ...process.env };
  t.after(() => Object.assign(process.env, before));
  for (const name of Object.keys(process.env))
    if (name.startsWith("AWS_")) delete process.env[name];
  Object.assign(process.env, { AWS_EC2_METADATA_DISABLED: "true", AWS_CONFIG_FILE: "/nowhere" });
  process.env["AWS_SHARED_CREDENTIALS_FILE"] = "/nowhere";
  const store = { bucket: "checkpoints", prefix: "", endpoint: "http://127.0.0.1:9", region: "r" };
  const key = "checkpoint-3/model.safetensors";
  for (let i = 0; i < 2; i++) {
    assert.equal(await writer.saveTensors({ store, key }, contentOf([0])), undefined);
  }
  assert.equal(notes.length, 2, notes.join("\n"));
  assert.match(notes[1] ?? "", /cannot write into the store.*credentials/i);
});

test("a shard that is gone amid a save ends it by name", async (t) => {
  const { reducers, group, notes } = await shardsOf(t, { timeoutMs: 500 });
  const writer = await writerOf(group, 0);
  const file = join(placeIn(t), "model.safetensors");
  await (reducers[1] as RunningReducer).close();
  await assert.rejects(writer.saveTensors({ file }, contentOf([0])), { code: "E_SHARD_LOST" });
  assert.deepEqual(notes, []);
});

test("a mirror writes in the place of a shard that is gone amid a save", async (t) => {
  const reducers = await reducersOf(t, 2 * numShards);
  const addresses = reducers.map(({ port }) => hostPort("127.0.0.1", port));
  const remote = { secret, timeoutMs: 500, note: () => assert.fail("nobody is told") };
  const { bus, events } = new EventRecorder();
  const start = startMirrored({
    replicas: [
      startRemoteShards(addresses.slice(0, numShards), remote),
      startRemoteShards(addresses.slice(numShards), remote),
    ],
    ...{ compareSteps: 0, bus },
  });
  const group = await ShardGroup.start(start, groupOptions);
  t.after(() => group.close());
  await group.load({ fill }, 3);
  const place = placeIn(t);
  const file = join(place, "model.safetensors");
  const expected = await expectedFile(join(place, "expected"), contentOf([0]), values);
  const writer = await writerOf(group, 0);
  // One that has parts of the tensor, then the one that writes it.
  for (const gone of [1, 0]) {
    await (reducers[gone] as RunningReducer).close();
    const saved = await writer.saveTensors({ file }, contentOf([0]));
    assert.equal(saved?.sha256, sha256(expected));
    assert.deepEqual(readFileSync(file), expected);
    rmSync(file);
  }
  const takenOver = events.filter(({ type }) => type === "shard.takenOver");
  assert.equal(takenOver.length, 2);
});

test("a shard whose disk is full ends the save, which is made again when there is room", async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "lockstep-saves-"));
  const disk = mountSmallDisk(join(directory, "disk"), 2 << 20);
  if (typeof disk === "string") {
    if (process.env["CI"] === "true") throw new Error(disk);
    return t.skip(disk);
  }
  t.after(() => {
    disk.remove();
    rmSync(directory, { recursive: true, force: true });
  });
  const { group, notes } = await shardsOf(t);
  const place = join(disk.directory, ".checkpoint-3.tmp-1-0123456789ab");
  mkdirSync(place);
  const file = join(place, "model.safetensors");
  disk.fill(64 << 10);
  const writer = await writerOf(group, 0);
  await assert.rejects(writer.saveTensors({ file }, contentOf([0])), { code: "E_DISK_FULL" });
  disk.free();
  const saved = await writer.saveTensors({ file }, contentOf([0]));
  assert.equal(saved?.sha256, sha256(readFileSync(file)));
  assert.deepEqual(notes, []);
});

test("a coordinator that another one followed saves nothing any more", async (t) => {
  const { reducers, group } = await shardsOf(t);
  const writer = await writerOf(group, 0);
  const next = await shardsOf(t, { reducers, epoch: 2 });
  const file = join(placeIn(t), "model.safetensors");
  await assert.rejects(writer.saveTensors({ file }, contentOf([0])), {
    code: "E_STALE_COORDINATOR",
  });
  assert.ok(!existsSync(file));
  // Shards that the one before let in fetch nothing for it, and for the next one what it asks for.
  assert.ok(
    (await (await writerOf(next.group, 0)).saveTensors({ file }, contentOf([0]))) !== undefined,
  );
});

test("a save that is under way when another coordinator comes is given up", async (t) => {
  const place = { file: join(placeIn(t), "model.safetensors") };
  const isCurrent = { value: true };
  const assertCurrent = (): void => assert.ok(isCurrent.value, "another one's");
  const range = { start: 0, end: blockElements };
  const masters = new Float32Array(new SharedArrayBuffer(blockElements * 4));
  const rest = { start: blockElements, end: layout.numElements };
  const elements = (_array: unknown, start: number, end: number): DistantArray => ({
    length: end - start,
    byteLength: (end - start) * 4,
    subarray: () => assert.fail("of all of it"),
    pieces: async function* () {
      isCurrent.value = false;
      yield new Float32Array(end - start);
    },
  });
  const saving = saveShardTensors({ place, assertCurrent }, contentOf([0]), {
    ...{ layout, piece: { range, masters, states: {} } },
    peers: [{ range: rest, elements }],
  });
  await assert.rejects(saving, /another one's/);
  // Without its last bytes nobody takes it for whole.
  await assert.rejects(openSafetensors(place.file));
});
