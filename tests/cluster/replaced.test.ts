import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { Coordinator } from "#coordinator/coordinator";
import type { CoordinatorOptions } from "#coordinator/options";
import { startRemoteShards } from "#coordinator/reducer/remote-shard";
import type { StartShard } from "#coordinator/shards";
import { hostPort } from "#lib/core/address";
import { LockstepError } from "#lib/core/errors/index";
import { startReducer } from "#reducer/start-reducer";
import { coordinatorOptions, EventRecorder } from "#tests/support/cluster";
import { spawnWorker } from "#tests/support/spawned-worker";
import { savesInto } from "#tests/support/saved-run";
import { limit, startCoordinator } from "#tests/support/started-coordinator";

// A coordinator that was silent, whose run another one has made to its end: the shards are gone with it.

const replaced = new LockstepError("E_OUTPUT_DIR_LOST", { directory: "run", by: "process 1" });

const shardsAt = (...addresses: readonly string[]): StartShard =>
  startRemoteShards(addresses, {
    // Longer than a test may take.
    ...{ secret: "of the run's coordinators", timeoutMs: 3_600_000, note: () => {} },
  });

async function startRun(
  t: TestContext,
  overrides: Partial<CoordinatorOptions>,
  totalSteps = 1_000,
) {
  const reducer = await startReducer({
    ...{ listenHost: "127.0.0.1", listenPort: 0, security: {}, idleTimeoutMs: 0, log: () => {} },
  });
  t.after(() => reducer.close());
  const startShard = shardsAt(hostPort("127.0.0.1", reducer.port));
  const started = await startCoordinator(totalSteps, { startShard, numShards: 1, ...overrides });
  const worker = spawnWorker(started.address);
  t.after(() => worker.process.kill("SIGKILL"));
  return { ...started, reducer };
}

test("it ends without their answers", limit, async (t) => {
  const { coordinator, recorder, reducer } = await startRun(t, {});
  const ended = assert.rejects(coordinator.run(), { code: "E_OUTPUT_DIR_LOST" });
  await recorder.until(({ type }) => type === "step.completed");
  await Promise.all([
    reducer.close(),
    // Whatever it waits for of them by then.
    new Promise((resolve) => setTimeout(resolve, 200)).then(() => coordinator.fail(replaced)),
    ended,
  ]);
});

test("so it does after its last step", limit, async (t) => {
  const { coordinator, recorder, reducer } = await startRun(t, {}, 2);
  const run = coordinator.run();
  const ended = assert.rejects(run, { code: "E_OUTPUT_DIR_LOST" });
  await recorder.until((event) => event.type === "step.completed" && event.step === 2);
  await reducer.close();
  await new Promise((resolve) => setTimeout(resolve, 200));
  coordinator.fail(replaced);
  await ended;
});

test("it waits for no shard that has not come yet", limit, async () => {
  const absent = shardsAt("127.0.0.1:1", "127.0.0.1:1");
  const options = coordinatorOptions(4, new EventRecorder().bus, { startShard: absent });
  const coordinator = new Coordinator(options);
  const started = assert.rejects(coordinator.start(), { code: "E_OUTPUT_DIR_LOST" });
  await new Promise((resolve) => setTimeout(resolve, 100));
  coordinator.fail(replaced);
  await started;
  // A shard that knows of the other coordinator says so itself.
  const stale = new LockstepError("E_STALE_COORDINATOR", { expected: "2", got: "1" });
  const startShard: StartShard = async (each) => {
    if (each.shardIndex === 1) throw stale;
    return absent(each);
  };
  const other = new Coordinator({ ...options, startShard });
  await assert.rejects(other.start(), { code: "E_STALE_COORDINATOR" });
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
