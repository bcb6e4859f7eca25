import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import type { CoordinatorOptions } from "#coordinator/options";
import { startRemoteShards } from "#coordinator/reducer/remote-shard";
import { hostPort } from "#lib/core/address";
import { LockstepError } from "#lib/core/errors/index";
import { startReducer } from "#reducer/start-reducer";
import { spawnWorker } from "#tests/support/cluster";
import { savesInto } from "#tests/support/saved-run";
import { limit, startCoordinator } from "#tests/support/started-coordinator";

// A coordinator that was silent, whose run another one has made to its end: the shards are gone with it.

const totalSteps = 1_000;
const replaced = new LockstepError("E_OUTPUT_DIR_LOST", { directory: "run", by: "process 1" });

async function startRun(t: TestContext, overrides: Partial<CoordinatorOptions>) {
  const reducer = await startReducer({
    ...{ listenHost: "127.0.0.1", listenPort: 0, security: {}, idleTimeoutMs: 0, log: () => {} },
  });
  t.after(() => reducer.close());
  const startShard = startRemoteShards([hostPort("127.0.0.1", reducer.port)], {
    // Longer than the test may take.
    ...{ secret: "of the run's coordinators", timeoutMs: 3_600_000, note: () => {} },
  });
  const started = await startCoordinator(totalSteps, { startShard, numShards: 1, ...overrides });
  const worker = spawnWorker(started.address);
  t.after(() => worker.process.kill("SIGKILL"));
  return { ...started, reducer };
}

test("it ends without their answers", limit, async (t) => {
  const { coordinator, recorder, reducer } = await startRun(t, {});
  const run = coordinator.run();
  await recorder.until(({ type }) => type === "step.completed");
  await Promise.all([
    reducer.close(),
    // Whatever it waits for of them by then.
    new Promise((resolve) => setTimeout(resolve, 200)).then(() => coordinator.fail(replaced)),
    assert.rejects(run, { code: "E_OUTPUT_DIR_LOST" }),
  ]);
});

test("it ends without what a save would read from them", limit, async (t) => {
  let goOn = (): void => {};
  const away = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  let begun = (): void => {};
  const saving = new Promise<void>((resolve) => {
    begun = resolve;
  });
  const save: ReturnType<typeof savesInto> = async (...given) => {
    begun();
    await away;
    return savesInto([])(...given);
  };
  const { coordinator, reducer } = await startRun(t, { checkpointing: { everySteps: 1, save } });
  const run = coordinator.run();
  const ended = assert.rejects(run, { code: "E_OUTPUT_DIR_LOST" });
  await saving;
  await reducer.close();
  goOn();
  coordinator.fail(replaced);
  await ended;
});
