import assert from "node:assert/strict";
import { test } from "node:test";
import { sequentialOracle } from "#tests/support/cluster";
import { spawnWorker } from "#tests/support/spawned-worker";
import { limit, startCoordinator } from "#tests/support/started-coordinator";

test("a coordinator that was stopped itself takes nobody for lost", limit, async () => {
  const totalSteps = 3;
  const heartbeatTimeoutMs = 4_000;
  const { coordinator, recorder, address } = await startCoordinator(totalSteps, {
    ...{ heartbeatTimeoutMs, leaseTimeoutMs: heartbeatTimeoutMs },
  });
  const running = coordinator.run();
  const worker = spawnWorker(address, { LOCKSTEP_TEST_STALL: "leased:1" });
  await recorder.until((event) => event.type === "group.leased" && event.step === 1);
  // The worker sends its heartbeats meanwhile; timers come before them.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, heartbeatTimeoutMs + 500);
  worker.process.send("go");
  const outcome = await running;
  const { code, stderr } = await worker.exited;
  assert.equal(code, 0, stderr);
  assert.deepEqual(recorder.of("worker.lost"), []);
  assert.deepEqual(recorder.of("group.requeued"), []);
  const oracle = await sequentialOracle(totalSteps);
  assert.equal(outcome.mastersSha256, oracle.mastersSha256);
});
