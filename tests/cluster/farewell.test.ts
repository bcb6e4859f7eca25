import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";
import { test } from "node:test";
import { Strays } from "#coordinator/strays";
import { ControlClient } from "#lib/wire/control-client";
import { remoteErrorCode } from "#lib/wire/rpc-errors";
import { spawnWorker } from "#tests/support/spawned-worker";
import { registered, testIdentity } from "#tests/support/scripted-member";
import { limit, startCoordinator } from "#tests/support/started-coordinator";
import { runWorker } from "#worker/worker";

// Who lives and is no member when the run ends is told so, and does not look for it in vain.

const totalSteps = 2;
/** A worker that failed is back by then, on a busy machine. */
const awayMs = 1_000;

/** A worker that has failed and has not come back yet. @param times how often it fails in a row */
async function failedWorker(address: string, times = 1) {
  const control = new ControlClient({ address, security: {} });
  const identity = testIdentity();
  for (let n = 0; n < times; n++) {
    const { workerId } = await registered(control, identity);
    const failure = { lease: 0, code: "E_TRANSFER_INCOMPLETE", message: "it says", fatal: false };
    await control.reportFailure({ workerId, ...failure });
  }
  const comesBack = async (): Promise<string> =>
    control
      .register(identity)
      .then(({ retryAfterMs }) => (retryAfterMs > 0 ? "asks again" : "registered"))
      .catch((error: unknown) => remoteErrorCode(error) || String(error));
  return { control, comesBack };
}

test("a worker that failed, and comes back when the run is over, is told so", limit, async () => {
  const { coordinator, address, recorder } = await startCoordinator(totalSteps);
  const run = coordinator.run();
  const other = spawnWorker(address, { LOCKSTEP_TEST_STALL: "computed:1" });
  await recorder.until((event) => event.type === "group.leased" && event.step === 1);
  const { control, comesBack } = await failedWorker(address);
  other.process.send("go");
  await recorder.until(({ type }) => type === "worker.left");
  await delay(awayMs);
  assert.equal(await comesBack(), "E_RUN_OVER");
  assert.equal((await other.exited).code, 0);
  assert.equal((await run).outcome, "finished");
  control.close();
});

test("a worker that is kept out for a while asks again, and hears of the end", limit, async () => {
  const { coordinator, address, recorder } = await startCoordinator(totalSteps, {
    plannedWorkers: 2,
  });
  const run = coordinator.run();
  const { control, comesBack } = await failedWorker(address, 5);
  assert.equal(recorder.of("worker.quarantined")[0]?.seconds, 30);
  const answers: string[] = [];
  const knocking = (async () => {
    for (;;) {
      const answer = await comesBack();
      answers.push(answer);
      if (answer !== "asks again") return;
      await delay(awayMs);
    }
  })();
  const other = spawnWorker(address);
  assert.equal((await run).outcome, "finished");
  assert.equal((await other.exited).code, 0);
  await knocking;
  assert.deepEqual(new Set(answers), new Set(["asks again", "E_RUN_OVER"]));
  control.close();
});

test("a run that is stopped says so to a worker between two registrations", limit, async () => {
  const { coordinator, address } = await startCoordinator(totalSteps);
  const run = coordinator.run();
  const { control, comesBack } = await failedWorker(address);
  coordinator.requestStop();
  await delay(awayMs);
  assert.equal(await comesBack(), "E_RUN_STOPPED");
  assert.equal((await run).outcome, "interrupted");
  control.close();
});

test("a worker that still makes its engine when the run ends is told so", limit, async () => {
  const { coordinator, address, recorder } = await startCoordinator(totalSteps, {
    heartbeatTimeoutMs: 60_000,
  });
  const run = coordinator.run();
  const other = spawnWorker(address, { LOCKSTEP_TEST_STALL: "computed:1" });
  await recorder.until((event) => event.type === "group.leased" && event.step === 1);
  const control = new ControlClient({ address, security: {} });
  const { workerId } = await registered(control);
  const load = { utilization: 0, memoryUsedBytes: 0, memoryTotalBytes: 0, deviceSeconds: 0 };
  const beat = { workerId, state: "compiling", ...load } as const;
  await control.heartbeat(beat);
  other.process.send("go");
  await recorder.until(({ type }) => type === "worker.left");
  // Again, where the answer got lost; and it may ask for work at the same moment, and leave by itself.
  for (let n = 0; n < 2; n++) await assert.rejects(control.heartbeat(beat), /E_RUN_OVER/);
  const task = await control.nextTask({ workerId, maxWaitMs: 0, heldLeases: [] });
  assert.equal(task.kind, "finished");
  assert.equal((await run).outcome, "finished");
  assert.deepEqual(
    recorder.of("worker.left").map(({ reason }) => reason),
    ["the job is over", "the job is over"],
  );
  control.close();
});

for (const [how, outcome] of [
  ["finished", "finished"],
  ["stopped", "interrupted"],
] as const) {
  test(`a worker whose group others have done hears that the run is ${how}`, limit, async (t) => {
    const steps = how === "finished" ? 1 : 1_000;
    const { coordinator, address, recorder } = await startCoordinator(steps, {
      leaseTimeoutMs: 1_000,
      minWorkers: 2,
    });
    const run = coordinator.run();
    const slow = spawnWorker(address, {
      LOCKSTEP_TEST_STALL: "leased:0",
      LOCKSTEP_TEST_NAME: "slow",
    });
    t.after(() => slow.process.kill("SIGKILL"));
    const other = spawnWorker(address);
    await recorder.until(({ type }) => type === "step.completed");
    if (how === "stopped") coordinator.requestStop();
    // The other one leaves by itself, the slow one as soon as it has been told.
    assert.equal((await run).outcome, outcome);
    const left = recorder.of("worker.left").map(({ reason }) => reason);
    const why = how === "stopped" ? "the run was stopped" : "the job is over";
    assert.deepEqual(left, [why, why]);
    assert.equal((await other.exited).code, 0);
    slow.process.send("go");
    assert.equal((await slow.exited).code, 0);
    assert.deepEqual(slow.facts.at(-1), { outcome, numGroups: 0 });
  });
}

test(
  "workers that wait for a run's kind to be chosen hear that it was stopped",
  limit,
  async () => {
    const { coordinator, address, recorder } = await startCoordinator(totalSteps, {
      ...{ plannedWorkers: 3, kindWaitMs: 60_000 },
    });
    const run = coordinator.run();
    const told: number[] = [];
    const worker = runWorker({
      ...{ coordinatorAddress: address, deviceKind: "fake", returnTimeoutMs: 1_500 },
      ...{ engineModule: "never loaded", reconnectTimeoutMs: 60_000 },
      observer: { awaitingReturn: (timeoutMs) => told.push(timeoutMs) },
    });
    await recorder.until(
      (event) => event.type === "phase.changed" && /1 worker here/.test(event.detail ?? ""),
    );
    coordinator.requestStop();
    assert.equal((await run).outcome, "interrupted");
    assert.deepEqual(await worker, { outcome: "interrupted", numGroups: 0 });
    assert.equal(told.length, 1, "it waited for the return of the run, and said so once");
  },
);

test("who is gone, or was heard long ago, is not waited for", () => {
  let nowMs = 0;
  const strays = new Strays(() => nowMs);
  for (const incarnation of ["a:1:x", "a:1:y", "b:2:z"]) strays.noted(incarnation);
  assert.equal(strays.size, 3);
  strays.ended("a:1:");
  assert.equal(strays.size, 1);
  strays.noted("c:3:u");
  strays.settled("b:2:z");
  nowMs = 10_001;
  assert.equal(strays.size, 0);
  for (let n = 0; n < 10_000; n++) strays.noted(`name-${n}`);
  assert.equal(strays.size, 4_096);
});
