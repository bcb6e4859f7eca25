import assert from "node:assert/strict";
import { test } from "node:test";
import { Coordinator } from "#coordinator/coordinator";
import { startShardThread } from "#coordinator/reducer/client";
import { startMirrored } from "#coordinator/reducer/mirrored-shard";
import type { StartShard } from "#coordinator/shards";
import {
  coordinatorOptions,
  evaluationBatches,
  EventRecorder,
  sequentialOracle,
} from "#tests/support/cluster";
import { spawnWorker } from "#tests/support/spawned-worker";
import { type Death, fate, startKillable } from "#tests/support/killable-shard";

const totalSteps = 4;
const limit = { timeout: 120_000 };

/** A run of two workers and two shards of two copies each. */
async function runOf(replicas: readonly [StartShard, StartShard]) {
  const recorder = new EventRecorder();
  const coordinator = new Coordinator(
    coordinatorOptions(totalSteps, recorder.bus, {
      startShard: startMirrored({ replicas, compareSteps: 1, bus: recorder.bus }),
      evaluation: { batches: evaluationBatches, atStart: true, atEnd: true, everySteps: 0 },
    }),
  );
  const { controlAddress } = await coordinator.start();
  const own = [spawnWorker(controlAddress), spawnWorker(controlAddress)];
  try {
    return { recorder, outcome: await coordinator.run() };
  } finally {
    await Promise.all(own.map(({ exited }) => exited));
  }
}

const moments: readonly { readonly call: string; readonly nth: number; readonly death: Death }[] = [
  { call: "changeFence", nth: 4, death: "during" },
  { call: "reduce", nth: 2, death: "before" },
  { call: "reduce", nth: 3, death: "after" },
  { call: "apply", nth: 2, death: "unheard" },
];

for (const { call, nth, death } of moments) {
  test(
    `the mirror takes over where a shard ends ${death} its call ${nth} of ${call}`,
    limit,
    async () => {
      const own = fate({ call, nth, death });
      const { recorder, outcome } = await runOf([startKillable(own), startKillable(fate())]);
      const oracle = await sequentialOracle(totalSteps);
      assert.equal(outcome.mastersSha256, oracle.mastersSha256);
      const steps = recorder.of("step.completed");
      assert.deepEqual(
        steps.map(({ step, loss }) => [step, loss]),
        oracle.losses.map((loss, index) => [index + 1, loss]),
      );
      const [takenOver, ...others] = recorder.of("shard.takenOver");
      assert.deepEqual(others, []);
      assert.match(takenOver?.reason ?? "", /Reducer shard \d failed: /);
      assert.deepEqual(recorder.of("worker.lost"), []);
      // Two mirrors at the start, and the one that comes in the place of the lost copy.
      const inPlace = recorder.of("mirror.inPlace").map(({ seconds }) => seconds > 0);
      assert.deepEqual(inPlace.slice(0, 2), [false, false]);
      assert.deepEqual(recorder.of("shard.lost"), []);
    },
  );
}

test("a mirror that is lost is told of, and the run goes on", limit, async () => {
  const own = fate({ call: "takeSum", nth: 2, death: "before" });
  const { recorder, outcome } = await runOf([startKillable(fate()), startKillable(own)]);
  assert.equal(outcome.mastersSha256, (await sequentialOracle(totalSteps)).mastersSha256);
  assert.equal(recorder.of("mirror.lost").length, 1);
  assert.deepEqual(recorder.of("shard.takenOver"), []);
  assert.equal(recorder.of("worker.joined").length, 2);
  // The other shard has its mirror all along, and compares with it after each update.
  const { shard: without } = recorder.of("mirror.lost")[0] ?? {};
  const other = recorder.of("mirror.compared").filter(({ shard }) => shard !== without);
  assert.ok(other.length >= totalSteps, `${other.length} comparisons`);
});

test("copies that differ end the run with the addresses of both", limit, async () => {
  const flipping: StartShard = async (options) => {
    const shard = await startShardThread(options);
    const apply = shard.apply.bind(shard);
    shard.apply = async (step, update) => {
      await apply(step, update);
      if (step !== 1 || options.shardIndex !== 1) return;
      const bits = new Uint32Array(shard.memory.masters.buffer, shard.memory.masters.byteOffset);
      bits[5] = (bits[5] ?? 0) ^ 1;
    };
    return shard;
  };
  await assert.rejects(runOf([startShardThread, flipping]), (error: Error) => {
    assert.equal((error as { code?: string }).code, "E_SHARD_DIVERGED");
    assert.match(error.message, /reducer shard 1, at 127\.0\.0\.1:\d+ and 127\.0\.0\.1:\d+, have/);
    return true;
  });
});
