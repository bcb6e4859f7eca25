import assert from "node:assert/strict";
import { test } from "node:test";
import { startShardThread } from "#coordinator/reducer/client";
import type { StartShard } from "#coordinator/shards";
import { LockstepError } from "#lib/core/errors/index";
import type { FenceChange } from "#lib/wire/reducer-messages";
import { sequentialOracle } from "#tests/support/cluster";
import { spawnWorker } from "#tests/support/spawned-worker";
import { limit, startCoordinator } from "#tests/support/started-coordinator";

const totalSteps = 3;

/** Shards of which the first does something before it hears of the first member. */
function startingWith(act: () => Promise<void>): StartShard {
  let isFirst = true;
  return async (options) => {
    const shard = await startShardThread(options);
    if (options.shardIndex !== 0) return shard;
    const changeFence = shard.changeFence.bind(shard);
    shard.changeFence = async (change: FenceChange): Promise<void> => {
      if (change.kind === "admit" && isFirst) {
        isFirst = false;
        await act();
      }
      await changeFence(change);
    };
    return shard;
  };
}

async function runWith(act: (told: (text: RegExp) => Promise<void>) => Promise<void>) {
  const told = async (text: RegExp): Promise<void> => {
    while (!text.test(JSON.stringify(worker.facts))) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  };
  const { coordinator, recorder, address } = await startCoordinator(totalSteps, {
    plannedWorkers: 1,
    // Shorter than a registration waits for a shard.
    heartbeatTimeoutMs: 4_000,
    startShard: startingWith(() => act(told)),
  });
  const worker = spawnWorker(address);
  const { mastersSha256 } = await coordinator.run();
  assert.equal(mastersSha256, (await sequentialOracle(totalSteps)).mastersSha256);
  const { code, stderr } = await worker.exited;
  assert.equal(code, 0, stderr);
  return { recorder, worker };
}

test(
  "a worker that joins while a shard is silent is told to wait, and takes part",
  limit,
  async () => {
    const { recorder } = await runWith((told) => told(/waits at .*a reducer does not answer/));
    assert.equal(recorder.of("worker.joined").length, 1);
    assert.deepEqual(recorder.of("worker.lost"), []);
  },
);

test("a worker whose registration meets a shard that is lost joins again", limit, async () => {
  const { recorder } = await runWith(async () => {
    throw new LockstepError("E_SHARD_LOST", { shardIndex: 0, address: "a:1", reason: "gone" });
  });
  assert.equal(recorder.of("worker.joined").length, 1);
  assert.deepEqual(recorder.of("worker.quarantined"), []);
});
