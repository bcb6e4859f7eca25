import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { LockstepError } from "#lib/core/errors/index";
import { ReducerProcess } from "#reducer/reducer-process";
import { ShardReducer } from "#coordinator/reducer/shard-reducer";
import { startRemoteShards } from "#coordinator/reducer/remote-shard";
import { type ShardHandle, ShardGroup, type ShardSource } from "#coordinator/shards";
import { hostPort } from "#lib/core/address";
import { type RunningReducer, startReducer } from "#reducer/start-reducer";
import { BulkClient } from "#lib/wire/bulk-client";
import { grantOn, passOf, testLife } from "#tests/support/members";
import { fetched } from "#tests/support/kept-arrays";
import { freePorts } from "#tests/support/ports";
import { adamW, smallLayout, updateOf, wireGradient } from "./gradients.js";

const layout = smallLayout(2, "bfloat16");
const secret = "of the run's coordinators";
const fill: ShardSource["fill"] = async ({ masters }) => void masters.fill(0.5);

async function reducerOf(
  t: TestContext,
  { port = 0, security = {} }: { readonly port?: number; readonly security?: object } = {},
): Promise<RunningReducer> {
  const reducer = await startReducer({
    ...{ listenHost: "127.0.0.1", listenPort: port, security, idleTimeoutMs: 0, log: () => {} },
  });
  t.after(() => reducer.close());
  return reducer;
}

async function shardOf(
  t: TestContext,
  { port }: RunningReducer,
  {
    life = testLife,
    timeoutMs = 20_000,
    shown = secret,
    security = {},
  }: {
    readonly life?: typeof testLife;
    readonly timeoutMs?: number;
    readonly shown?: string;
    readonly security?: object;
  } = {},
): Promise<ShardHandle> {
  const start = startRemoteShards([hostPort("127.0.0.1", port)], {
    ...{ secret: shown, timeoutMs, note: () => {} },
  });
  const shard = await start({
    ...{ shardIndex: 0, numShards: 1, layout, optimizer: adamW, gradientGroups: 1 },
    ...{ listenHost: "127.0.0.1", security, life },
  });
  t.after(() => shard.close());
  return shard;
}

async function push(shard: ShardHandle, step: number, lease: number, epoch = 1): Promise<string> {
  await grantOn(shard, { id: lease, step, group: 0 });
  const pass = { ...passOf(), epoch };
  const client = new BulkClient({ address: shard.address, security: {}, pass });
  try {
    const request = { step, group: 0, lease };
    return (await client.pushGradients(request, wireGradient(layout, step))).outcome;
  } finally {
    client.close();
  }
}

test("a later coordinator finds a shard where it is, and the one before is refused", async (t) => {
  const reducer = await reducerOf(t);
  const first = await shardOf(t, reducer);
  await first.load({ fill });
  await first.publishInitial(0);
  await first.openStep(0);
  assert.equal(await push(first, 0, 1), "complete");
  const sums = await first.reduce(0);
  await first.apply(0, updateOf(1));
  await first.openStep(1);
  const arrived = new Promise((resolve) => first.onArrived(resolve));
  assert.equal(await push(first, 1, 2), "complete");
  await arrived;

  const failed = new Promise((resolve) => first.onFailure(resolve));
  const second = await shardOf(t, reducer, { life: { ...testLife, epoch: 2 } });
  assert.deepEqual(await second.status(), {
    ...{ isLoaded: true, version: 1, step: 1, stage: "open" },
    ...{ numSquaresKept: 0, isFisherFinished: false, numApplied: 1, numAppliesRepeated: 0 },
  });
  const stale = { code: "E_STALE_COORDINATOR" };
  await assert.rejects(first.apply(1, updateOf(2)), stale);
  assert.equal(((await failed) as { code: string }).code, stale.code);
  await assert.rejects(first.status(), stale);
  // Its workers are nobody's, and what has come of the step is told to who listens now.
  await assert.rejects(push(second, 1, 3, 1), /epoch 2/);
  const again = await new Promise<{ lease: number }>((resolve) => second.onArrived(resolve));
  assert.equal(again.lease, 2);
  assert.notDeepEqual((await second.reduce(1))?.blockSumsOfSquares, sums?.blockSumsOfSquares);
  await second.apply(1, updateOf(2));
  await second.apply(1, updateOf(2));
  const { numApplied, numAppliesRepeated } = await second.status();
  assert.deepEqual([numApplied, numAppliesRepeated], [2, 1]);
  await assert.rejects(shardOf(t, reducer), stale);
});

test("a coordinator without the run's secret, or of another run, is refused", async (t) => {
  const reducer = await reducerOf(t);
  await shardOf(t, reducer);
  const later = { ...testLife, epoch: 9 };
  const stale = { code: "E_STALE_COORDINATOR" };
  await assert.rejects(shardOf(t, reducer, { life: later, shown: "a worker's guess" }), stale);
  await assert.rejects(
    shardOf(t, reducer, { life: { ...later, runId: "other" }, shown: "its own" }),
    stale,
  );
  // The next run of the same output directory, whose first one left nothing.
  const next = await shardOf(t, reducer, { life: { ...later, runId: "next" } });
  assert.equal((await next.status()).isLoaded, false);
});

test("who has not the join token opens nothing", async (t) => {
  const reducer = await reducerOf(t, { security: { joinToken: "of all members" } });
  const start = shardOf(t, reducer, { security: { joinToken: "a guess" } });
  await assert.rejects(start, { code: "E_JOIN_TOKEN" });
  const shard = await shardOf(t, reducer, { security: { joinToken: "of all members" } });
  assert.equal((await shard.status()).stage, "none");
});

test("a process that was started anew, and one that is away for long, is a lost shard", async (t) => {
  const first = await reducerOf(t, { port: await freePorts(1) });
  const shard = await shardOf(t, first);
  await shard.load({ fill });
  const failed = new Promise((resolve) => shard.onFailure(resolve));
  await first.close();
  const anew = await reducerOf(t, { port: first.port });
  await assert.rejects(shard.publishInitial(0), { code: "E_SHARD_LOST" });
  assert.equal(((await failed) as { code: string }).code, "E_SHARD_LOST");

  const other = await shardOf(t, anew, { timeoutMs: 1 });
  const lost = new Promise((resolve) => other.onFailure(resolve));
  await anew.close();
  assert.equal(((await lost) as { code: string }).code, "E_SHARD_LOST");
  await assert.rejects(other.status(), { code: "E_SHARD_LOST" });
});

test("a process that fails without a reason of the catalogue is a lost shard at once", async (t) => {
  const shard = await shardOf(t, await reducerOf(t));
  const failed = new Promise((resolve) => shard.onFailure(resolve));
  const digest = t.mock.method(ShardReducer.prototype, "digest", async () => {
    throw new TypeError("no bytes");
  });
  await assert.rejects(shard.digest(), {
    code: "E_SHARD_LOST",
    message: /shard 0 failed: no bytes/,
  });
  assert.equal(digest.mock.callCount(), 1);
  assert.equal(((await failed) as { code: string }).code, "E_SHARD_LOST");
});

test("a shard of which nothing can be heard is lost, whatever that comes from", async (t) => {
  t.mock.method(ReducerProcess.prototype, "watch", () => {
    throw new LockstepError("E_SHARD_STATE", {
      ...{ shardIndex: 0, call: "watch", expected: "one", got: "another" },
    });
  });
  const shard = await shardOf(t, await reducerOf(t));
  const failed = await new Promise((resolve) => shard.onFailure(resolve));
  assert.equal((failed as { code: string }).code, "E_SHARD_LOST");
});

test("arrays that are sent are those that are read, and no others are", async (t) => {
  const reducers = [await reducerOf(t), await reducerOf(t)];
  const addresses = reducers.map(({ port }) => hostPort("127.0.0.1", port));
  const group = await ShardGroup.start(
    startRemoteShards(addresses, { secret, timeoutMs: 20_000, note: () => {} }),
    {
      ...{ numShards: 2, layout, gradientGroups: 1, listenHost: "127.0.0.1", security: {} },
      ...{ optimizer: adamW, life: testLife },
    },
  );
  t.after(() => group.close());
  assert.deepEqual(
    group.addresses(() => "elsewhere"),
    addresses,
  );
  const source: ShardSource = {
    fill: async ({ range, masters, states }) => {
      for (let i = 0; i < masters.length; i++) masters[i] = range.start + i;
      states["second_moment"]?.fill(3);
    },
  };
  await group.load(source, 4);
  const parts = (await group.hold(() => true)).snapshot;
  for (const { range, masters, states } of parts) {
    assert.equal(masters.length, range.end - range.start);
    assert.ok(!(masters instanceof Float32Array), "nothing is copied");
    const values = await fetched(masters);
    assert.ok(values.every((value, i) => value === range.start + i));
    assert.deepEqual(await fetched(masters.subarray(70_000, 70_010)), values.slice(70_000, 70_010));
    assert.ok((await fetched(states["second_moment"])).every((value) => value === 3));
    assert.ok((await fetched(states["first_moment"])).every((value) => value === 0));
  }
  assert.deepEqual(
    (await group.status()).map(({ version }) => version),
    [4, 4],
  );
});
