import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { startShardThread } from "#coordinator/reducer/client";
import { startMirrored } from "#coordinator/reducer/mirrored-shard";
import { ShardGroup, type ShardSource, type StartShard } from "#coordinator/shards";
import { updatedShards, wholeSums } from "#coordinator/whole-sums";
import { isLockstepError, LockstepError } from "#lib/core/errors/index";
import { keptMastersSha256 } from "#lib/core/masters-hash";
import { buildParameterLayout } from "#lib/core/parameter-layout";
import { finishFisher } from "#lib/optim/ewc";
import { type ChosenOptimizer, StepUpdate } from "#lib/optim/index";
import { peerName } from "#lib/wire/reducer-messages";
import { BulkClient } from "#lib/wire/bulk-client";
import type { LockstepEvent } from "#lib/core/events";
import { EventRecorder } from "#tests/support/cluster";
import { testValues } from "#tests/support/compare";
import {
  type Death,
  deaths,
  fate,
  type Fate,
  startKillable,
  threadsStarted,
} from "#tests/support/killable-shard";
import { inMemory } from "#tests/support/kept-arrays";
import { admitTo, grantOn, passOf, testLife } from "#tests/support/members";
import { adamW, smallLayout, wireGradient } from "./gradients.js";

// A shard with two copies in threads, of which one ends at any of its calls. LOCKSTEP_TEST_ALL=1 ends it at all of them.

const layout = buildParameterLayout(
  [
    { name: "matrix", shape: [64, 32] },
    { name: "vector", shape: [100] },
  ],
  "bfloat16",
);
const adafactor: ChosenOptimizer = {
  name: "adafactor",
  settings: {
    ...{ scaleParameter: true, clipThreshold: 1, decayRate: -0.8, squareEpsilon: 1e-30 },
    ...{ scaleEpsilon: 1e-3, beta1: 0.9, weightDecay: 0 },
  },
};
const numGroups = 2;
const totalSteps = 4;

interface Case {
  readonly optimizer: ChosenOptimizer;
  readonly numRounds: number;
  /** A step whose gradient is not finite. */
  readonly skipped?: number;
}
const cases: Readonly<Record<string, Case>> = {
  adamw: { optimizer: adamW, numRounds: 0, skipped: 1 },
  adafactor: { optimizer: adafactor, numRounds: 0 },
  ewc: { optimizer: { ...adamW, ewcLambda: 0.5 }, numRounds: 2 },
};

interface Ended {
  readonly sha256: string;
  readonly digest: string;
  readonly numApplied: number;
  readonly numAppliesRepeated: number;
  /** Types of events, in order. */
  readonly news: readonly LockstepEvent["type"][];
}

/** A run of one shard, with a worker that sends groups again where it has to. */
async function runOf(of: Case, fates: readonly [Fate, Fate]): Promise<Ended> {
  const { optimizer, numRounds } = of;
  const { bus, events } = new EventRecorder();
  const shards = await ShardGroup.start(
    startMirrored({
      replicas: [startKillable(fates[0]), startKillable(fates[1])],
      compareSteps: 2,
      bus,
    }),
    {
      ...{ numShards: 1, layout, optimizer, gradientGroups: numGroups, security: {} },
      ...{ listenHost: "127.0.0.1", life: testLife },
    },
  );
  let numMoves = 0;
  let nextLease = 1;
  shards.onMoved(() => (numMoves += 1));
  const gradient = (step: number, group: number): Uint8Array =>
    step === of.skipped && group === 1
      ? wireGradient(layout, 0).fill(0xff)
      : wireGradient(layout, step * 10 + group);
  const openStep = async (step: number): Promise<void> => {
    await threadsStarted();
    await shards.openStep(step);
  };
  /** As a worker does that joins again where a shard is elsewhere. */
  const send = async (step: number, seed: number): Promise<void> => {
    for (let group = 0; group < numGroups; ) {
      const before = numMoves;
      const id = nextLease++;
      await grantOn(shards, { id, step, group });
      const [address = ""] = shards.addresses();
      const client = new BulkClient({ address, security: {}, pass: passOf() });
      try {
        if (numMoves === before) {
          await client.pushGradients({ step, group, lease: id }, gradient(seed, group));
          group += 1;
        }
      } catch (error) {
        if (!isLockstepError(error) || numMoves === before) throw error;
      } finally {
        client.close();
      }
      if (numMoves === before) continue;
      await shards.restartStep(step);
      group = 0;
    }
  };
  const fill: ShardSource["fill"] = async ({ range, masters }) => {
    masters.set(testValues(layout.numElements, 1).subarray(range.start, range.end));
  };
  try {
    await shards.load({ fill }, 0);
    for (let round = 0; round < numRounds; round++) {
      await openStep(round);
      await send(round, 100 + round);
      await wholeSums(shards, round, async () => {
        await shards.restartStep(round);
        await send(round, 100 + round);
      });
      await shards.keepSquares(round, round === 0);
    }
    if (numRounds > 0) await finishFisher(shards, layout, { numRows: 3, normalises: true });
    const settings = { optimizer, learningRateAt: () => 1e-2, maxGradNorm: 1 };
    const updates = new StepUpdate(layout, settings);
    for (let step = 0; step < totalSteps; step++) {
      await openStep(step);
      await send(step, step);
      const again = async (): Promise<void> => {
        await shards.restartStep(step);
        await send(step, step);
      };
      await updates.run(updatedShards(shards, again), { step, loss: 1 });
    }
    const { snapshot } = await shards.hold(() => true);
    const [status] = await shards.status();
    return {
      sha256: await keptMastersSha256(layout, snapshot),
      digest: JSON.stringify(
        Object.values(snapshot[0]?.states ?? {}).map((values) => [...inMemory(values)]),
      ),
      numApplied: status?.numApplied ?? 0,
      numAppliesRepeated: status?.numAppliesRepeated ?? 0,
      news: events.map(({ type }) => type),
    };
  } finally {
    await shards.close();
  }
}

/** Of each kind of call some, so that a run of all tests takes seconds. */
const isAsked = (index: number): boolean =>
  process.env["LOCKSTEP_TEST_ALL"] === "1" || index % 41 === 0;

for (const [name, of] of Object.entries(cases)) {
  test(`${name}: whichever copy ends at whichever call, no step is lost or made twice`, async () => {
    const [first, second] = [fate(), fate()] as const;
    const undisturbed = await runOf(of, [first, second]);
    const changes = undisturbed.news.filter((type) => type !== "mirror.compared");
    assert.deepEqual(changes, ["mirror.inPlace"]);
    assert.ok(first.calls.includes("reduce") && second.calls.includes("takeSum"));
    const numUpdates = totalSteps - (of.skipped === undefined ? 0 : 1);
    assert.equal(undisturbed.numApplied, numUpdates);
    let index = 0;
    let numTakeovers = 0;
    let numJoined = 0;
    for (const [copy, { calls }] of [first, second].entries()) {
      // Before the weights are loaded there is nothing to lose: the run begins anew.
      const from = calls.indexOf("publishInitial") + 2;
      for (let at = from; at <= calls.length; at++) {
        for (const death of deaths) {
          if (!isAsked(index++)) continue;
          const what = `copy ${copy} ends ${death} call ${at}, ${calls[at - 1]}`;
          const own = fate({ at, death });
          const ended = await runOf(of, copy === 0 ? [own, fate()] : [fate(), own]).catch(
            (error: unknown) => assert.fail(`${what}: ${String(error)}`),
          );
          assert.equal(ended.sha256, undisturbed.sha256, what);
          assert.equal(ended.digest, undisturbed.digest, what);
          assert.equal(ended.numAppliesRepeated, 0, what);
          const isDead = own.numCalls >= at;
          if (copy === 0 && isDead) {
            // The last call's death may be noticed after the run.
            if (ended.news.includes("shard.takenOver"))
              assert.equal(ended.numApplied, numUpdates, what);
            numTakeovers += ended.news.filter((type) => type === "shard.takenOver").length;
          }
          numJoined += ended.news.filter((type) => type === "mirror.inPlace").length - 1;
        }
      }
    }
    assert.ok(numTakeovers > 3, `${numTakeovers} takeovers`);
    assert.ok(numJoined > 3, `${numJoined} copies came in the place of lost ones`);
  });
}

test("where both copies end the shard is lost", async () => {
  const ends = (death: Death): Fate => fate({ at: 8, death });
  await assert.rejects(runOf(cases["adamw"] as Case, [ends("before"), ends("before")]), {
    code: "E_SHARD_FAILED",
  });
});

test("what a shard keeps, and a sum, go to a shard of the same range alone", async () => {
  const shard = await startShardThread({
    ...{ shardIndex: 3, numShards: 4, optimizer: adamW, gradientGroups: 1, security: {} },
    ...{ layout: smallLayout(4, "bfloat16"), listenHost: "127.0.0.1", life: testLife },
  });
  const clientOf = (workerId: string): BulkClient =>
    new BulkClient({ address: shard.address, security: {}, pass: passOf(workerId) });
  const clients = ["worker", peerName(2), peerName(3), "shard-3"].map(clientOf);
  const [worker, other, peer, stranger] = clients;
  const kept = new Uint8Array(shard.memory.masters.byteLength * 3);
  const refused = { code: "E_RPC_FAILED" };
  try {
    for (const name of ["worker", peerName(2), peerName(3)]) await admitTo(shard, name);
    shard.memory.masters.fill(1);
    await shard.publishInitial(7);
    for (const space of ["kept", "sum"] as const) {
      for (const client of [worker, other, stranger]) {
        await assert.rejects(
          client?.pullParameters({ space, version: 7 }, kept) ?? fail(),
          refused,
        );
      }
    }
    await peer?.pullParameters({ space: "kept", version: 7 }, kept);
    const masters = new Float32Array(kept.buffer, 0, shard.memory.masters.length);
    assert.deepEqual(masters, shard.memory.masters.slice());
    await assert.rejects(
      peer?.pullParameters({ space: "kept", version: 6 }, kept) ?? fail(),
      refused,
    );
    const sum = kept.subarray(0, kept.length / 3);
    await assert.rejects(
      peer?.pullParameters({ space: "sum", version: 0 }, sum) ?? fail(),
      refused,
    );
  } finally {
    for (const client of clients) client.close();
    await shard.close();
  }
});

const fail = (): never => assert.fail("there is no client");

test("a process that refuses to be a mirror ends no run", async (t) => {
  let numStarts = 0;
  const refusing: StartShard = async () => {
    numStarts += 1;
    throw numStarts === 1
      ? new LockstepError("E_SHARD_LOST", { shardIndex: 0, address: "a:1", reason: "away" })
      : new LockstepError("E_STALE_COORDINATOR", { expected: "another run", got: "this run" });
  };
  const { bus, events } = new EventRecorder();
  const start = startMirrored({ replicas: [startShardThread, refusing], compareSteps: 0, bus });
  const shard = await start({
    ...{ shardIndex: 0, numShards: 1, layout: smallLayout(1, "bfloat16"), optimizer: adamW },
    ...{ gradientGroups: 1, listenHost: "127.0.0.1", security: {}, life: testLife },
  });
  t.after(() => shard.close());
  const failures: unknown[] = [];
  shard.onFailure((error) => failures.push(error));
  while (numStarts < 3) await delay(20);
  assert.deepEqual(failures, []);
  const notes = events.filter(({ type }) => type === "note");
  assert.equal(notes.length, 1, JSON.stringify(notes));
});

test("a copy that has all that the run needs is enough to go on", async (t) => {
  let numSought = 0;
  const away: StartShard = ({ signal }) => {
    numSought += 1;
    return new Promise((_, reject) => {
      const giveUp = (): void => reject(new LockstepError("E_CLOSED", { what: "shard 0" }));
      signal?.addEventListener("abort", giveUp);
    });
  };
  const { bus, events } = new EventRecorder();
  const start = startMirrored({
    ...{ replicas: [away, startShardThread], compareSteps: 0, bus },
    isReached: () => true,
  });
  const shard = await start({
    ...{ shardIndex: 0, numShards: 1, layout: smallLayout(1, "bfloat16"), optimizer: adamW },
    ...{ gradientGroups: 1, listenHost: "127.0.0.1", security: {}, life: testLife },
  });
  t.after(() => shard.close());
  const lost = events.flatMap((event) => (event.type === "mirror.lost" ? [event.reason] : []));
  assert.match(lost.join(), /did not answer within 2 s, and the run goes on without it/);
  // It is still looked for.
  while (numSought < 2) await delay(20);
});
