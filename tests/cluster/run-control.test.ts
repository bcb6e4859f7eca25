import assert from "node:assert/strict";
import { fork } from "node:child_process";
import { test } from "node:test";
import type { RunOutcome } from "#coordinator/options";
import { LockstepError } from "#lib/core/errors/index";
import { mastersSha256 } from "#lib/core/masters-hash";
import { shardRanges, wireOffsetBytes, wireSizeBytes } from "#lib/core/parameter-layout";
import { BulkClient } from "#lib/wire/bulk-client";
import { ControlClient } from "#lib/wire/control-client";
import type { MemberPass } from "#lib/wire/member";
import { sequentialOracle, testJob } from "#tests/support/cluster";
import { spawnWorker } from "#tests/support/spawned-worker";
import { limit, startCoordinator } from "#tests/support/started-coordinator";
import { FakeEngine } from "#tests/support/fake-engine";
import { freePorts } from "#tests/support/ports";
import { registered, testIdentity } from "#tests/support/scripted-member";
import { goesOnFrom, type Saved, savesInto } from "#tests/support/saved-run";

const totalSteps = 4;
const oracle = await sequentialOracle(totalSteps);

const identity = testIdentity();

async function resumed(saved: Saved): Promise<RunOutcome> {
  // Another number of shards than the run that was saved.
  const { coordinator, address } = await startCoordinator(totalSteps, {
    numShards: 3,
    ...goesOnFrom(saved),
  });
  const worker = spawnWorker(address);
  const outcome = await coordinator.run();
  assert.equal((await worker.exited).code, 0);
  return outcome;
}

test("a checkpoint in the middle continues to the same bits", limit, async () => {
  const saved: Saved[] = [];
  const { coordinator, recorder, address } = await startCoordinator(totalSteps, {
    checkpointing: { everySteps: 1, save: savesInto(saved) },
  });
  spawnWorker(address);
  const outcome = await coordinator.run();
  assert.equal(outcome.mastersSha256, oracle.mastersSha256);
  assert.deepEqual(
    saved.map(({ state }) => state.step),
    [1, 2, 3, 4],
  );
  assert.equal(recorder.of("checkpoint.saved").length, 4);
  const last = saved.at(-1);
  assert.equal(mastersSha256(testJob.layout, last?.snapshot ?? []), oracle.mastersSha256);
  const middle = saved[1];
  assert.ok(middle);
  const again = await resumed(middle);
  assert.equal(again.mastersSha256, oracle.mastersSha256);
  assert.deepEqual(
    again.state.logHistory.filter((entry) => "loss" in entry).map(({ step, loss }) => [step, loss]),
    oracle.losses.map((loss, index) => [index + 1, loss]),
  );
});

test("a stop request ends after the step, with a checkpoint that continues", limit, async () => {
  const saved: Saved[] = [];
  const { coordinator, recorder, address } = await startCoordinator(totalSteps, {
    checkpointing: { everySteps: 0, save: savesInto(saved) },
  });
  const worker = spawnWorker(address);
  void recorder
    .until((event) => event.type === "group.completed" && event.step === 1)
    .then(() => coordinator.requestStop());
  const outcome = await coordinator.run();
  assert.equal(outcome.outcome, "interrupted");
  assert.equal(outcome.step, 2);
  assert.equal((await worker.exited).code, 0);
  const [only] = saved;
  assert.ok(only);
  assert.equal(saved.length, 1);
  assert.equal((await resumed(only)).mastersSha256, oracle.mastersSha256);
});

test("a run whose workers fail for good keeps the steps since its last save", limit, async () => {
  const saved: Saved[] = [];
  const { coordinator, recorder, address } = await startCoordinator(totalSteps, {
    checkpointing: { everySteps: 0, save: savesInto(saved) },
  });
  const worker = spawnWorker(address);
  const facts = { restarts: 3, reason: "killed by SIGKILL", logFile: "worker-1.log" };
  void recorder
    .until((event) => event.type === "group.completed" && event.step === 2)
    .then(() => coordinator.fail(new LockstepError("E_WORKERS_EXHAUSTED", facts)));
  await assert.rejects(coordinator.run(), { code: "E_WORKERS_EXHAUSTED" });
  assert.equal((await worker.exited).code, 0);
  const [only] = saved;
  assert.ok(only);
  assert.equal(only.state.step, 2);
  assert.equal((await resumed(only)).mastersSha256, oracle.mastersSha256);
});

test("a failing save ends the run with its error", limit, async () => {
  const { coordinator, address } = await startCoordinator(totalSteps, {
    checkpointing: {
      everySteps: 1,
      save: async () => {
        throw new Error("no space");
      },
    },
  });
  const worker = spawnWorker(address);
  await assert.rejects(coordinator.run(), /no space/);
  assert.equal((await worker.exited).code, 0);
});

test("a worker that registers and never says a word more holds nobody up", limit, async () => {
  const { coordinator, recorder, address } = await startCoordinator(totalSteps, {
    heartbeatTimeoutMs: 700,
  });
  const running = coordinator.run();
  const ghost = new ControlClient({ address, security: {} });
  const { workerId } = await registered(ghost);
  const task = await ghost.nextTask({ workerId, maxWaitMs: 5_000, heldLeases: [] });
  assert.equal(task.kind, "train");
  spawnWorker(address);
  const outcome = await running;
  ghost.close();
  assert.equal(outcome.mastersSha256, oracle.mastersSha256);
  assert.ok(
    recorder
      .of("worker.lost")
      .some((event) => event.workerId === workerId && /heartbeat/.test(event.reason)),
  );
});

test(
  "a worker that dies after pushing to one shard and half to another changes nothing",
  limit,
  async () => {
    const { coordinator, address, recorder } = await startCoordinator(totalSteps, {
      // What it does takes a while, and it sends no heartbeats.
      heartbeatTimeoutMs: 60_000,
    });
    const running = coordinator.run();
    const control = new ControlClient({ address, security: {} });
    const { workerId, shardAddresses, pass } = await registered(control, identity);
    const task = await control.nextTask({ workerId, maxWaitMs: 5_000, heldLeases: [] });
    assert.ok(task.kind === "train");
    const shards = shardAddresses.map(
      (shard) => new BulkClient({ address: shard, security: {}, pass }),
    );
    const ends = [
      0,
      ...shardRanges(testJob.layout, 2).map(({ end }) => wireOffsetBytes(testJob.layout, end)),
    ];
    const range = (bytes: Uint8Array, shard: number): Uint8Array =>
      bytes.subarray(ends[shard], ends[shard + 1]);
    const wire = new Uint8Array(wireSizeBytes(testJob.layout));
    for (const [shard, client] of shards.entries()) {
      await client.pullParameters({ version: task.version }, range(wire, shard));
    }
    const engine = new FakeEngine(testJob);
    engine.loadParameters(wire);
    for (const [i, batch] of task.batches.entries()) {
      const out = i === task.batches.length - 1 ? wire : undefined;
      engine.accumulate(batch, task.gradScales[i] as number, i === 0, out);
    }
    const lease = { step: task.step, group: task.group, lease: task.lease };
    const whole = await shards[0]?.pushGradients(lease, range(wire, 0));
    assert.equal(whole?.outcome, "complete");
    const half = range(wire, 1).subarray(0, 100_000);
    await assert.rejects(shards[1]?.pushGradients(lease, half) ?? Promise.resolve(), /bytes/);
    coordinator.reportWorkerExit(identity.incarnation, "killed");
    for (const client of shards) client.close();
    control.close();
    const worker = spawnWorker(address);
    assert.equal((await running).mastersSha256, oracle.mastersSha256);
    assert.equal((await worker.exited).code, 0);
    assert.ok(recorder.of("group.requeued").some((event) => event.workerId === workerId));
  },
);

test("what a worker may not do is refused by name", limit, async () => {
  const { coordinator, address } = await startCoordinator(totalSteps, {
    security: { joinToken: "secret" },
  });
  const running = coordinator.run();
  const stranger = new ControlClient({ address, security: { joinToken: "guess" } });
  await assert.rejects(stranger.register(identity), /UNAUTHENTICATED, E_JOIN_TOKEN/);
  const wrongToken = spawnWorker(address);
  const { code, stderr } = await wrongToken.exited;
  assert.equal(code, 1);
  assert.match(stderr, /E_JOIN_TOKEN/);

  const member = new ControlClient({ address, security: { joinToken: "secret" } });
  await assert.rejects(member.register({ ...identity, protocolVersion: 99 }), /E_PROTOCOL_VERSION/);
  await assert.rejects(
    member.nextTask({ workerId: "nobody", maxWaitMs: 0, heldLeases: [] }),
    /E_STALE_RUN.*belongs to no run/,
  );
  await assert.rejects(
    member.register({ ...identity, name: "x".repeat(10_000) }),
    /E_MESSAGE_INVALID.*name has more than 128 characters/,
  );
  const security = { LOCKSTEP_TEST_SECURITY: JSON.stringify({ joinToken: "secret" }) };
  const { workerId } = await registered(member);
  await assert.rejects(
    member.nextTask({ workerId: "nobody", maxWaitMs: 0, heldLeases: [] }),
    /E_UNKNOWN_WORKER/,
  );
  await member.leave({ workerId, reason: "done" });
  spawnWorker(address, security);
  assert.equal((await running).mastersSha256, oracle.mastersSha256);
  stranger.close();
  member.close();
});

test("an engine's error of the last worker ends the run, named", limit, async () => {
  const { coordinator, address } = await startCoordinator(totalSteps, { plannedWorkers: 1 });
  const running = coordinator.run();
  const outcome = assert.rejects(running, (error: Error & { code?: string }) => {
    assert.equal(error.code, "E_WORKER_FAILED");
    assert.match(error.message, /E_FRAME_INVALID.*no lowering/);
    return true;
  });
  const worker = spawnWorker(address, { LOCKSTEP_TEST_ENGINE_FAILURE: "no lowering" });
  await outcome;
  assert.equal((await worker.exited).code, 1);
});

test("an engine's error on one device leaves the run to the others", limit, async () => {
  const { coordinator, recorder, address } = await startCoordinator(totalSteps);
  const running = coordinator.run();
  const broken = spawnWorker(address, { LOCKSTEP_TEST_ENGINE_FAILURE: "no lowering" });
  assert.equal((await broken.exited).code, 1);
  const worker = spawnWorker(address);
  assert.equal((await running).mastersSha256, oracle.mastersSha256);
  assert.equal((await worker.exited).code, 0);
  assert.match(recorder.of("worker.quarantined")[0]?.reason ?? "", /no lowering/);
});

test(
  "a worker that fails again and again is kept out for a while; the others go on",
  limit,
  async () => {
    const { coordinator, recorder, address } = await startCoordinator(totalSteps);
    const running = coordinator.run();
    const failing = new ControlClient({ address, security: {} });
    for (let failure = 0; failure < 5; failure++) {
      const { workerId } = await registered(failing, identity);
      const report = { workerId, lease: 0, code: "E_ENGINE_CRASHED", message: "out of memory" };
      await failing.reportFailure({ ...report, fatal: false });
    }
    const { workerId, retryAfterMs } = await failing.register(identity);
    assert.deepEqual([workerId, retryAfterMs], ["", 1_000]);
    failing.close();
    const worker = spawnWorker(address);
    assert.equal((await running).mastersSha256, oracle.mastersSha256);
    assert.equal((await worker.exited).code, 0);
    const [kept, ...more] = recorder.of("worker.quarantined");
    assert.deepEqual([kept?.seconds, more.length], [30, 0]);
    assert.match(kept?.reason ?? "", /5 failures.*out of memory/);
  },
);

test("workers outlive a coordinator that is killed and started again", limit, async () => {
  const listenPort = await freePorts(4);
  const first = fork(new URL("../support/cluster-coordinator.js", import.meta.url), {
    env: {
      ...process.env,
      ...{
        LOCKSTEP_TEST_STEPS: String(totalSteps),
        LOCKSTEP_TEST_OPTIONS: JSON.stringify({ listenPort }),
      },
    },
  });
  const message = async (key: string, value?: string): Promise<string> =>
    new Promise((resolve) => {
      const listen = (fact: Readonly<Record<string, string>>): void => {
        const found = fact[key];
        if (found === undefined || (value !== undefined && found !== value)) return;
        first.off("message", listen);
        resolve(found);
      };
      first.on("message", listen);
    });
  const stepCompleted = message("type", "step.completed");
  const address = await message("controlAddress");
  const worker = spawnWorker(address, { LOCKSTEP_TEST_STALL: "computed:1" });
  await stepCompleted;
  const killed = new Promise((resolve) => first.once("exit", resolve));
  first.kill("SIGKILL");
  await killed;
  worker.process.send("go");
  const second = await startCoordinator(totalSteps, { listenPort });
  assert.equal((await second.coordinator.run()).mastersSha256, oracle.mastersSha256);
  assert.equal((await worker.exited).code, 0);
});

test("a report of a former coordinator's lease counts for nobody", limit, async () => {
  const losses = { kind: "losses", sums: [{ lossSum: 1, weight: 60 }] } as const;
  const leased = async (
    address: string,
  ): Promise<{ control: ControlClient; workerId: string; pass: MemberPass; lease: number }> => {
    const control = new ControlClient({ address, security: {} });
    const { workerId, pass } = await registered(control);
    const task = await control.nextTask({ workerId, maxWaitMs: 5_000, heldLeases: [] });
    assert.ok(task.kind === "train");
    return { control, workerId, pass, lease: task.lease };
  };
  const former = await startCoordinator(totalSteps);
  const formerRun = former.coordinator.run();
  const before = await leased(former.address);
  const { coordinator, recorder, address } = await startCoordinator(totalSteps);
  const running = coordinator.run();
  const now = await leased(address);
  const request = { workerId: now.workerId, lease: before.lease, result: losses };
  assert.deepEqual(await now.control.completeTask(request), { stale: true });
  assert.deepEqual(recorder.of("group.completed"), []);
  // Nor may the former worker speak here.
  now.control.usePass(before.pass);
  await assert.rejects(now.control.completeTask(request), /E_STALE_RUN/);
  now.control.usePass(now.pass);
  for (const { control, workerId } of [before, now]) {
    // On a slow machine its silence was noticed first.
    await control.leave({ workerId, reason: "" }).catch(() => {});
  }
  spawnWorker(former.address);
  spawnWorker(address);
  assert.equal((await formerRun).mastersSha256, oracle.mastersSha256);
  assert.equal((await running).mastersSha256, oracle.mastersSha256);
  for (const { control } of [before, now]) control.close();
});

test("a stop request with nobody to finish the step takes effect", limit, async () => {
  const saved: Saved[] = [];
  const { coordinator, recorder, address } = await startCoordinator(totalSteps, {
    checkpointing: { everySteps: 0, save: savesInto(saved) },
  });
  const worker = spawnWorker(address, { LOCKSTEP_TEST_FAULT: "computed:1" });
  void worker.exited.then(() => coordinator.reportWorkerExit(worker.incarnation, "killed"));
  void recorder.until(({ type }) => type === "worker.lost").then(() => coordinator.requestStop());
  const outcome = await coordinator.run();
  assert.equal(outcome.outcome, "interrupted");
  assert.equal(outcome.step, 1);
  const [only] = saved;
  assert.ok(only);
  assert.equal((await resumed(only)).mastersSha256, oracle.mastersSha256);
});

test(
  "gradients that are not finite change nothing, and a row of them ends the run",
  limit,
  async () => {
    const { coordinator, recorder, address } = await startCoordinator(totalSteps, {
      loadMasters: async (_range, into) => {
        into.fill(Number.NaN);
      },
    });
    const worker = spawnWorker(address);
    await assert.rejects(coordinator.run(), { code: "E_NON_FINITE_GRADIENT" });
    assert.equal(recorder.of("step.completed").length, 2);
    assert.equal((await worker.exited).code, 0);
  },
);
