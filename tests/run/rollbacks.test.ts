import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { LockstepError } from "#lib/core/errors/index";
import type { RunResumed } from "#lib/core/events";
import { InProcessEventBus } from "#lib/wire/event-bus";
import { trainWithRollbacks } from "#run/rollbacks";
import type { StartedRun } from "#run/start";

test("no step is made again once workers were told that the run is over", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-rollbacks-"));
  t.after(() => rm(directory, { recursive: true }));
  const run = {
    config: { output_dir: directory, max_rollbacks: 3, checkpoint_store: null },
    record: { runId: "run" },
    lastSave: { atMs: 0 },
  } as unknown as StartedRun;
  const lost = new LockstepError("E_SHARD_LOST", {
    ...{ shardIndex: 0, address: "a:1", reason: "killed" },
  });
  const repeated: number[] = [];
  const livesOf = async (partedAt: number | undefined): Promise<number> => {
    let numLives = 0;
    const bus = new InProcessEventBus();
    bus.subscribe((event) => {
      if (event.type === "shards.rolledBack") repeated.push(event.numSteps);
    });
    const training = trainWithRollbacks({
      ...{
        run,
        bus,
        begunFrom: undefined,
        onLeft: () => {},
        onBack: () => {},
        stop: new AbortController().signal,
      },
      train: async (_resume, { parted }) => {
        numLives += 1;
        // It goes on where its shards are.
        if (numLives === 1) bus.publish({ type: "run.resumed", step: 5 } as RunResumed);
        if (partedAt !== undefined) parted(partedAt);
        throw lost;
      },
    });
    await assert.rejects(training, { code: "E_SHARD_LOST" });
    return numLives;
  };
  assert.equal(await livesOf(undefined), 4);
  assert.deepEqual(repeated, [5, 0, 0]);
  assert.equal(await livesOf(7), 1);
});
