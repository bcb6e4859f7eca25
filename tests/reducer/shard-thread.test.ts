import assert from "node:assert/strict";
import { after, test } from "node:test";
import { ReducerShard } from "#coordinator/reducer/client";
import type { LockstepError } from "#lib/core/errors/index";
import {
  type ParameterLayout,
  shardRanges,
  wireOffsetBytes,
  wireSizeBytes,
} from "#lib/core/parameter-layout";
import { BulkClient } from "#lib/wire/bulk-client";
import {
  decodePushReply,
  encodePullRequest,
  maxBulkMessageBytes,
  pullParametersMethod,
  pushGradientsMethod,
} from "#lib/wire/bulk-protocol";
import { chunks, decodeFrame, encodeFrame } from "#lib/wire/frame";
import { createChannelClient } from "#lib/wire/grpc-client";
import { passEntries } from "#lib/wire/member";
import { callMetadata } from "#lib/wire/security";
import { admitTo, grantOn, passOf, tagOf, testLife } from "#tests/support/members";
import { adamW, smallLayout, updateOf, wireGradient } from "./gradients.js";

const closers: (() => Promise<void> | void)[] = [];
after(async () => {
  for (const close of closers.reverse()) await close();
});

/** Opens a step in which lease n is of group (n - 1) % 2, but of a step of one group all are of that. */
async function openStep(shard: ReducerShard, step: number, numGroups = 1): Promise<void> {
  await shard.openStep(step);
  for (const id of [1, 2, 3, 4, 5]) {
    await grantOn(shard, { id, step, group: (id - 1) % numGroups });
  }
}

/** The shards of a layout with a client of each, and calls that go to all of them. */
async function clusterOf(layout: ParameterLayout, numShards: number, gradientGroups: number) {
  const shards = await Promise.all(
    Array.from({ length: numShards }, async (_, shardIndex) =>
      ReducerShard.start({
        ...{ shardIndex, numShards, layout, gradientGroups, optimizer: adamW },
        listenHost: "127.0.0.1",
        security: { joinToken: "secret" },
        life: testLife,
      }),
    ),
  );
  for (const shard of shards) await admitTo(shard);
  const clients = shards.map(
    ({ address }) => new BulkClient({ address, security: { joinToken: "secret" }, pass: passOf() }),
  );
  closers.push(async () => {
    for (const client of clients) client.close();
    await Promise.all(shards.map(async (shard) => shard.close()));
  });
  const ranges = shardRanges(layout, numShards).map(({ start, end }) => ({
    start: wireOffsetBytes(layout, start),
    end: wireOffsetBytes(layout, end),
  }));
  return {
    shards,
    clients,
    push: async (step: number, group: number, lease: number, bytes: Uint8Array) =>
      Promise.all(
        clients.map(async (client, i) =>
          client.pushGradients(
            { step, group, lease },
            bytes.subarray(ranges[i]?.start, ranges[i]?.end),
          ),
        ),
      ),
    pull: async (version: number) => {
      const into = new Uint8Array(new SharedArrayBuffer(wireSizeBytes(layout)));
      await Promise.all(
        clients.map(async (client, i) =>
          client.pullParameters({ version }, into.subarray(ranges[i]?.start, ranges[i]?.end)),
        ),
      );
      return Buffer.from(into);
    },
  };
}

/** Three steps of two groups, of which each arrives as `pushStep` has it. */
async function train(
  layout: ParameterLayout,
  numShards: number,
  pushStep: (
    push: (group: number, lease: number) => Promise<unknown>,
    step: number,
  ) => Promise<unknown>,
) {
  const cluster = await clusterOf(layout, numShards, 2);
  const { shards } = cluster;
  await Promise.all(
    shards.map(async (shard, i) => {
      const { start, end } = shardRanges(layout, numShards)[i] ?? { start: 0, end: 0 };
      shard.memory.masters.set(
        Float32Array.from({ length: end - start }, (_, j) => (start + j) % 7),
      );
      await shard.publishInitial(0);
    }),
  );
  const history: unknown[] = [(await cluster.pull(0)).toString("base64")];
  for (let step = 0; step < 3; step++) {
    const arrived = Promise.all(
      shards.map(
        async (shard) =>
          new Promise<void>((resolve) => {
            const groups = new Set<number>();
            shard.onArrived((arrived) => {
              if (arrived.step === step && groups.add(arrived.group).size === 2) resolve();
            });
          }),
      ),
    );
    for (const shard of shards) await openStep(shard, step, 2);
    await pushStep(
      async (group, lease) =>
        cluster.push(step, group, lease, wireGradient(layout, step * 2 + group)),
      step,
    );
    await arrived;
    const sums = await Promise.all(shards.map(async (shard) => shard.reduce(step)));
    history.push(sums.flatMap(({ blockSumsOfSquares }) => [...blockSumsOfSquares]));
    await Promise.all(shards.map(async (shard) => shard.apply(step, updateOf(step + 1, 0.25))));
    history.push((await cluster.pull(step + 1)).toString("base64"));
  }
  const snapshots = await Promise.all(shards.map(async (shard) => shard.snapshot()));
  history.push(snapshots.flatMap(({ masters }) => [...masters]));
  for (const slot of ["first_moment", "second_moment"]) {
    history.push(snapshots.flatMap(({ states }) => [...(states[slot] ?? [])]));
  }
  return { cluster, history };
}

test("2 shards with groups out of order, raced and repeated equal 1 shard bit for bit", async () => {
  const layout = smallLayout(2, "bfloat16");
  const one = await train(layout, 1, async (push) => {
    await push(0, 1);
    await push(1, 2);
  });
  const outcomes: unknown[] = [];
  const two = await train(layout, 2, async (push, step) => {
    if (step === 0) {
      await push(1, 2);
      await push(0, 1);
    } else if (step === 1) await Promise.all([push(0, 1), push(0, 3), push(1, 2), push(1, 4)]);
    else {
      outcomes.push(await push(1, 2), await push(1, 4));
      await push(0, 1);
    }
  });
  assert.deepEqual(two.history, one.history);
  const receivedBytes = wireOffsetBytes(layout, shardRanges(layout, 2)[0]?.end ?? 0);
  assert.deepEqual(outcomes, [
    [
      { outcome: "complete", receivedBytes },
      { outcome: "complete", receivedBytes: wireSizeBytes(layout) - receivedBytes },
    ],
    [
      { outcome: "duplicate", receivedBytes: Math.min(receivedBytes, 1024 ** 2) },
      { outcome: "duplicate", receivedBytes: wireSizeBytes(layout) - receivedBytes },
    ],
  ]);
  assert.equal(
    one.cluster.shards[0]?.stats().sentBytes,
    4 * wireSizeBytes(layout),
    "four pulls were counted",
  );
});

test("a push that breaks off is not counted; the next lease of the group is", async () => {
  const layout = smallLayout(16, "float32");
  const { shards, clients, push } = await clusterOf(layout, 1, 1);
  const shard = shards[0] as ReducerShard;
  const completed: unknown[] = [];
  const done = new Promise<void>((resolve) =>
    shard.onArrived(({ digest, ...facts }) => {
      assert.match(digest, /^[0-9a-f]{64}$/);
      completed.push(facts);
      resolve();
    }),
  );
  await shard.publishInitial(0);
  await openStep(shard, 0);
  const gradient = wireGradient(layout, 3);
  const abort = new AbortController();
  await assert.rejects(
    (clients[0] as BulkClient).pushGradients(
      {
        ...{ step: 0, group: 0, lease: 1, signal: abort.signal },
        onChunk: () => abort.abort(),
      },
      gradient,
    ),
  );
  // One that ends in good order, but too early.
  await assert.rejects(
    (clients[0] as BulkClient).pushGradients(
      { step: 0, group: 0, lease: 2 },
      gradient.subarray(0, gradient.length - 4),
    ),
    (error: LockstepError) => /E_PUSH_INCOMPLETE/.test(JSON.stringify(error.details)),
  );
  await assert.rejects(shard.reduce(0), { code: "E_SHARD_STATE" });
  await push(0, 0, 3, gradient);
  await done;
  assert.deepEqual(completed, [{ step: 0, group: 0, lease: 3 }]);
  assert.equal((await shard.reduce(0)).blockSumsOfSquares.length, 17);
});

/** A push under the test's control, frame by frame. */
function rawPush(address: string) {
  const security = { joinToken: "secret" };
  const client = createChannelClient({ address, security, maxReceiveBytes: maxBulkMessageBytes });
  closers.push(() => client.close());
  let settle: (settled: { error?: Error; outcome?: string }) => void = () => {};
  const settled = new Promise<{ error?: Error; outcome?: string }>((resolve) => {
    settle = resolve;
  });
  const call = client.makeClientStreamRequest(
    pushGradientsMethod.path,
    pushGradientsMethod.requestSerialize,
    pushGradientsMethod.responseDeserialize,
    callMetadata(security, passEntries(passOf())),
    (error: Error | null, reply?: Buffer) =>
      settle(
        error !== null || reply === undefined
          ? { error: error ?? new Error("no reply") }
          : { outcome: decodePushReply(reply).outcome },
      ),
  );
  call.on("error", () => {});
  return { call, settled };
}

const encodedChunks = (gradient: Uint8Array, lease: number): Buffer[] =>
  [...chunks(gradient)].map(({ offset, payload }) =>
    encodeFrame({ step: 0, group: 0, lease, offset, member: tagOf() }, payload),
  );

test("a frame whose bytes changed on their way ends its push; the group is not counted", async () => {
  const layout = smallLayout(16, "float32");
  const { shards, push } = await clusterOf(layout, 1, 1);
  const shard = shards[0] as ReducerShard;
  await openStep(shard, 0);
  const gradient = wireGradient(layout, 3);
  const { call, settled } = rawPush(shard.address);
  const frames = encodedChunks(gradient, 1);
  const last = frames.at(-1) as Buffer;
  last[last.length - 1] = (last.at(-1) as number) ^ 1;
  for (const frame of frames) call.write(frame);
  call.end();
  assert.match(String((await settled).error), /checksum of a frame is wrong/);
  await assert.rejects(shard.reduce(0), { code: "E_SHARD_STATE" });
  assert.equal((await push(0, 0, 2, gradient))[0]?.outcome, "complete");
});

test("pushes beyond the limit wait for a buffer, and go on when one becomes free", async () => {
  const layout = smallLayout(8, "float32");
  const { shards } = await clusterOf(layout, 1, 1);
  const shard = shards[0] as ReducerShard;
  await openStep(shard, 0);
  const framesOf = (lease: number) => encodedChunks(wireGradient(layout, 1), lease);
  const numBytes = () => shard.stats().receivedBytes;
  const receivedAtLeast = async (bytes: number): Promise<void> => {
    while (numBytes() < bytes) await new Promise((resolve) => setImmediate(resolve));
  };
  // One group, so one buffer and two spare ones: three pushes that stop after a chunk hold them.
  const stopped = [1, 2, 3].map((lease) => {
    const push = rawPush(shard.address);
    push.call.write(framesOf(lease)[0] as Buffer);
    return push;
  });
  await receivedAtLeast(3 * 1024 ** 2);
  const waiting = rawPush(shard.address);
  for (const frame of framesOf(4)) waiting.call.write(frame);
  waiting.call.end();
  // Its first chunk has come, and no other is read before it has a buffer.
  await receivedAtLeast(4 * 1024 ** 2);
  assert.equal(numBytes(), 4 * 1024 ** 2);
  stopped[0]?.call.cancel();
  assert.deepEqual(await waiting.settled, { outcome: "complete" });
  // The bytes of the others take no buffer any more, and are compared.
  const arrived = new Promise((resolve) => shard.onArrived(resolve));
  for (const frame of framesOf(2).slice(1)) stopped[1]?.call.write(frame);
  stopped[1]?.call.end();
  assert.deepEqual(await stopped[1]?.settled, { outcome: "duplicate" });
  assert.equal(((await arrived) as { readonly lease: number }).lease, 2);
  stopped[2]?.call.cancel();
  assert.equal((await shard.reduce(0)).blockSumsOfSquares.length, 9);
});

test("a pull that is too slow ends with an error, never with bytes of two versions", async () => {
  // More than the queues of 16 chunks on both sides hold, so the shard is overtaken while it sends.
  const layout = smallLayout(160, "float32");
  const zeroGradient = new Uint8Array(wireSizeBytes(layout));
  const { shards, push } = await clusterOf(layout, 1, 1);
  const shard = shards[0] as ReducerShard;
  shard.memory.masters.fill(1);
  await shard.publishInitial(0);
  const security = { joinToken: "secret" };
  const client = createChannelClient({
    ...{ address: shard.address, security, maxReceiveBytes: maxBulkMessageBytes },
    windowBytes: 64 * 1024,
  });
  closers.push(() => client.close());
  const call = client.makeServerStreamRequest(
    pullParametersMethod.path,
    pullParametersMethod.requestSerialize,
    pullParametersMethod.responseDeserialize,
    encodePullRequest({ version: 0 }),
    callMetadata(security, passEntries(passOf())),
  );
  const messages = (call as AsyncIterable<Buffer>)[Symbol.asyncIterator]();
  const received = [(await messages.next()).value as Buffer];
  for (let step = 0; step < 2; step++) {
    await openStep(shard, step);
    // Weight decay changes the masters.
    await push(step, 0, 1, zeroGradient);
    await shard.reduce(step);
    await shard.apply(step, updateOf(step + 1));
  }
  await assert.rejects(async () => {
    for (;;) {
      const next = await messages.next();
      if (next.done === true) return;
      received.push(next.value);
    }
  }, /version 0 is not published here; available: 1, 2/);
  for (const message of received) {
    const { payload } = decodeFrame(message);
    const values = new Float32Array(Uint8Array.from(payload).buffer);
    assert.ok(values.every((value) => value === 1));
  }
});

test("a late joiner pulls the current version; one that is gone names those that are held", async () => {
  const layout = smallLayout(1, "bfloat16");
  const { cluster, history } = await train(layout, 2, async (push) => {
    await Promise.all([push(0, 1), push(1, 2)]);
  });
  const late = (cluster.shards[0] as ReducerShard).address;
  assert.match(late, /^127\.0\.0\.1:\d+$/);
  assert.equal((await cluster.pull(3)).toString("base64"), history[6]);
  assert.equal((await cluster.pull(2)).toString("base64"), history[4]);
  await assert.rejects(cluster.pull(1), (error: LockstepError) => {
    assert.match(error.message, /version 1 is not published here; available: 2, 3/);
    return true;
  });
  const shard = cluster.shards[0] as ReducerShard;
  const snapshot = await shard.snapshot();
  const trained = Float32Array.from(shard.memory.masters);
  shard.memory.masters.fill(5);
  assert.ok(
    snapshot.masters.some((value) => value !== 5),
    "a copy",
  );
  assert.equal(await shard.snapshot(snapshot), snapshot, "into the memory given");
  assert.ok(snapshot.masters.every((value) => value === 5));
  shard.memory.masters.set(trained);
  const stale = await cluster.push(1, 0, 9, wireGradient(layout, 0));
  assert.deepEqual(
    stale.map(({ outcome }) => outcome),
    ["stale", "stale"],
  );
});

test("errors of the thread arrive as errors of the catalogue, and a dead thread fails every call", async () => {
  const layout = smallLayout(1, "bfloat16");
  const start = async (listenHost: string) =>
    ReducerShard.start({
      ...{ shardIndex: 0, numShards: 1, layout, gradientGroups: 1, listenHost, optimizer: adamW },
      security: {},
      life: testLife,
    });
  await assert.rejects(start("0.0.0.0"), { code: "E_INSECURE_BIND" });
  const shard = await start("127.0.0.1");
  await assert.rejects(shard.reduce(0), { code: "E_SHARD_STATE" });
  await shard.openStep(3);
  await shard.openStep(3);
  await assert.rejects(shard.openStep(4), { code: "E_SHARD_STATE" });
  await shard.close();
  await assert.rejects(shard.reduce(3), { code: "E_SHARD_FAILED" });
});
