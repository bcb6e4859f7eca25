import assert from "node:assert/strict";
import { setMaxListeners } from "node:events";
import { test } from "node:test";
import { float16Job, float16Updates, sequentialOracle } from "#tests/support/cluster";
import { spawnWorker } from "#tests/support/spawned-worker";
import { limit, startCoordinator } from "#tests/support/started-coordinator";
import { ScriptedMember, testIdentity } from "#tests/support/scripted-member";

test(
  "a member that begins many pushes under one lease keeps nobody else from sending",
  limit,
  async () => {
    const totalSteps = 2;
    const { coordinator, recorder, address } = await startCoordinator(totalSteps, {
      heartbeatTimeoutMs: 110_000,
      leaseTimeoutMs: 1_000,
    });
    const running = coordinator.run();
    const hoarder = await ScriptedMember.join(address, testIdentity("hoarder"));
    const task = await hoarder.lease();
    const { gradient } = await hoarder.compute(task);
    const end = new AbortController();
    const { signal } = end;
    setMaxListeners(0, signal);
    // More than a shard has buffers for.
    const clients = Array.from({ length: 8 }, () => hoarder.shardsAs(hoarder.pass));
    const held = clients.map(
      async (shards) =>
        new Promise<void>((begun) => {
          let numBegun = 0;
          const onChunk = async (): Promise<void> => {
            if (++numBegun === shards.length) begun();
            await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
          };
          hoarder.pushBy(shards, task, gradient, { signal, onChunk }).catch(() => {});
        }),
    );
    await Promise.all(held);
    const worker = spawnWorker(address);
    const outcome = await running;
    const { code, stderr } = await worker.exited;
    // Nobody waited for a buffer.
    assert.ok(recorder.of("pushes.waiting").every(({ numPushes }) => numPushes === 0));
    end.abort();
    for (const shard of clients.flat()) shard.close();
    hoarder.close();
    assert.equal(code, 0, stderr);
    const oracle = await sequentialOracle(totalSteps);
    assert.equal(outcome.mastersSha256, oracle.mastersSha256);
  },
);

test("reports without bytes are no progress: whoever only reports is kept out", limit, async () => {
  const { coordinator, recorder, address } = await startCoordinator(1, {
    heartbeatTimeoutMs: 110_000,
    bytesAfterReportMs: 50,
  });
  const running = coordinator.run();
  const reporter = await ScriptedMember.join(address, testIdentity("reporter"));
  const { sums } = await reporter.compute(await reporter.lease());
  const reporting = (async () => {
    for (let n = 0; n < 20; n++) await reporter.report((await reporter.lease()).lease, sums);
  })();
  await assert.rejects(reporting, /E_UNKNOWN_WORKER/);
  const [kept] = recorder.of("worker.quarantined");
  assert.equal(kept?.workerId, "reporter");
  assert.match(kept?.reason ?? "", /whose bytes did not come/);
  const worker = spawnWorker(address);
  await running;
  assert.equal((await worker.exited).code, 0);
  reporter.close();
});

test(
  "a member that never asks for work is not waited for to confirm a gradient",
  limit,
  async () => {
    const totalSteps = 3;
    const { coordinator, recorder, address } = await startCoordinator(totalSteps, {
      job: float16Job,
      updates: float16Updates,
      heartbeatTimeoutMs: 110_000,
      leaseTimeoutMs: 2_000,
    });
    const running = coordinator.run();
    const idle = await ScriptedMember.join(address, testIdentity("idle"));
    const worker = spawnWorker(address);
    const outcome = await running;
    assert.equal((await worker.exited).code, 0);
    idle.close();
    // It was not waited for until its heartbeats were missed.
    assert.deepEqual(recorder.of("worker.lost"), []);
    const oracle = await sequentialOracle(totalSteps, float16Job);
    assert.equal(outcome.mastersSha256, oracle.mastersSha256);
    assert.ok(
      recorder.of("step.completed").some(({ gradientNorm }) => !Number.isFinite(gradientNorm)),
    );
  },
);
