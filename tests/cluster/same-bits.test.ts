import assert from "node:assert/strict";
import { test } from "node:test";
import type { Coordinator } from "#coordinator/coordinator";
import type { CoordinatorOptions, RunOutcome } from "#coordinator/options";
import {
  evaluationBatches,
  type EventRecorder,
  sequentialOracle,
  type TestWorker,
} from "#tests/support/cluster";
import { spawnWorker } from "#tests/support/spawned-worker";
import { limit, startCoordinator } from "#tests/support/started-coordinator";

const totalSteps = 4;
const oracle = await sequentialOracle(totalSteps);

interface Run {
  readonly outcome: RunOutcome;
  readonly recorder: EventRecorder;
  readonly workers: readonly TestWorker[];
}

/** A whole run over real sockets; a killed worker is noticed by its exit, or only by its silence. */
async function run(
  workerEnvs: readonly Readonly<Record<string, string>>[],
  options: {
    readonly overrides?: Partial<CoordinatorOptions>;
    readonly reportExits?: boolean;
    readonly during?: (parts: {
      readonly recorder: EventRecorder;
      readonly address: string;
      readonly coordinator: Coordinator;
      readonly add: (worker: TestWorker) => void;
      readonly workers: readonly TestWorker[];
    }) => Promise<void>;
  } = {},
): Promise<Run> {
  const { coordinator, recorder, address } = await startCoordinator(totalSteps, options.overrides);
  const workers: TestWorker[] = [];
  const add = (worker: TestWorker): void => {
    workers.push(worker);
    if (options.reportExits !== false) {
      void worker.exited.then(({ code, signal }) =>
        coordinator.reportWorkerExit(worker.incarnation, `exit ${code ?? signal}`),
      );
    }
  };
  for (const env of workerEnvs) add(spawnWorker(address, env));
  const [outcome] = await Promise.all([
    coordinator.run(),
    options.during?.({ recorder, address, coordinator, add, workers }),
  ]);
  return { outcome, recorder, workers };
}

/** A second worker computes beside the first one, and waits in step 1 until that is lost. */
const besideLost: NonNullable<NonNullable<Parameters<typeof run>[1]>["during"]> = async ({
  recorder,
  address,
  add,
}) => {
  const first = await recorder.until(({ type }) => type === "worker.joined");
  const { workerId: firstId } = first as { readonly workerId?: string };
  const second = spawnWorker(address, { LOCKSTEP_TEST_STALL: "leased:1" });
  add(second);
  await recorder.until((event) => event.type === "worker.lost" && event.workerId === firstId);
  second.process.send("go");
};

async function assertAllLeft({ workers }: Run, killed = 0): Promise<void> {
  const exits = await Promise.all(workers.map((worker) => worker.exited));
  assert.equal(exits.filter(({ signal }) => signal === "SIGKILL").length, killed);
  for (const { code, signal, stderr } of exits) {
    if (signal !== "SIGKILL") assert.equal(code, 0, stderr);
  }
}

function assertSameAsOracle({ outcome, recorder }: Run): void {
  assert.equal(outcome.outcome, "finished");
  assert.equal(outcome.mastersSha256, oracle.mastersSha256);
  const steps = recorder.of("step.completed");
  assert.deepEqual(
    steps.map(({ loss }) => loss),
    oracle.losses,
  );
  assert.deepEqual(
    steps.map(({ gradientNorm }) => gradientNorm),
    oracle.norms,
  );
  // Each group of each step counted exactly once.
  const done = recorder.of("group.completed").map(({ step, group }) => `${step}/${group}`);
  assert.equal(new Set(done).size, done.length);
  assert.equal(done.length, totalSteps * 4);
}

for (const [numWorkers, numShards] of [
  [1, 1],
  [2, 2],
  [4, 3],
] as const) {
  test(`${numWorkers} workers and ${numShards} shards give the oracle's bits`, limit, async () => {
    const result = await run(
      Array.from({ length: numWorkers }, () => ({})),
      {
        overrides: {
          ...{ numShards, minWorkers: numWorkers },
          evaluation: { batches: evaluationBatches, atStart: true, atEnd: true, everySteps: 0 },
        },
      },
    );
    assertSameAsOracle(result);
    assert.deepEqual(
      result.outcome.evaluations.map(({ loss }) => loss),
      oracle.evaluationLosses,
    );
    await assertAllLeft(result);
  });
}

for (const fault of ["asking:0", "leased:1", "computed:1", "pushing:1", "pushed:1"]) {
  test(`a worker killed while ${fault} changes nothing`, limit, async () => {
    const result = await run([{ LOCKSTEP_TEST_FAULT: fault }], { during: besideLost });
    assertSameAsOracle(result);
    await assertAllLeft(result, 1);
    assert.equal(
      result.recorder.of("worker.lost").filter(({ reason }) => /SIGKILL/.test(reason)).length,
      1,
    );
  });
}

const groupsAt = (result: Run, type: "group.leased" | "group.requeued", step: number): number[] =>
  result.recorder
    .of(type)
    .filter((event) => event.step === step)
    .map(({ group }) => group);

test("a group is computed, sent and reported while the one before it is sent", limit, async () => {
  const result = await run([{ LOCKSTEP_TEST_HOLD: "completed:1" }]);
  assertSameAsOracle(result);
  const phases = result.workers[0]?.facts.map((fact) => {
    const { phase, step, group } = fact as { phase?: string; step?: number; group?: number };
    return step === 1 ? `${phase} ${group}` : "";
  });
  const overlapped = phases?.slice(phases.indexOf("computed 0"), phases.indexOf("pushed 0") + 1);
  assert.deepEqual(
    overlapped?.filter((phase) => /[01]$/.test(phase)),
    ["computed 0", "leased 1", "computed 1", "pushed 1", "completed 1", "pushed 0"],
  );
  assert.deepEqual(groupsAt(result, "group.requeued", 1), []);
  await assertAllLeft(result);
});

for (const phase of ["leased", "computed", "pushing", "pushed", "completed"]) {
  test(
    `a worker killed with one group ${phase} and one half sent gives back both`,
    limit,
    async () => {
      const env = { LOCKSTEP_TEST_HOLD: `${phase}:1`, LOCKSTEP_TEST_FAULT: "held" };
      const result = await run([env], {
        during: async ({ recorder, address, add }) => {
          await recorder.until(({ type }) => type === "worker.lost");
          add(spawnWorker(address));
        },
      });
      assertSameAsOracle(result);
      assert.deepEqual(groupsAt(result, "group.requeued", 1), phase === "completed" ? [0] : [0, 1]);
      await assertAllLeft(result, 1);
    },
  );
}

test(
  "a push that fails while the next group is computed costs both leases and no bits",
  limit,
  async () => {
    const env = {
      ...{ LOCKSTEP_TEST_HOLD: "computed:1", LOCKSTEP_TEST_FAULT: "held-fails" },
      // It comes back, and waits for the other one there.
      LOCKSTEP_TEST_STALL: "leased:2",
    };
    const result = await run([env], {
      during: async ({ recorder, address, add, workers }) => {
        await recorder.until(({ type }) => type === "worker.lost");
        add(spawnWorker(address, { LOCKSTEP_TEST_NAME: "second" }));
        await recorder.until(
          (event) => event.type === "group.leased" && event.workerId === "second",
        );
        workers[0]?.process.send("go");
      },
    });
    assertSameAsOracle(result);
    assert.ok(groupsAt(result, "group.requeued", 1).includes(0));
    assert.ok(result.recorder.of("worker.lost").some(({ reason }) => /a gradient/.test(reason)));
    await assertAllLeft(result);
  },
);

test("a killed worker that nobody reports is missed by its heartbeats", limit, async () => {
  const result = await run([{ LOCKSTEP_TEST_FAULT: "computed:1" }], {
    during: besideLost,
    reportExits: false,
    overrides: { heartbeatTimeoutMs: 3_000 },
  });
  assertSameAsOracle(result);
  await assertAllLeft(result, 1);
  assert.ok(result.recorder.of("worker.lost").some(({ reason }) => /no heartbeat/.test(reason)));
  assert.ok(result.recorder.of("group.requeued").length > 0);
});

test("the last worker dies, and the run waits for one to join", limit, async () => {
  const result = await run([{ LOCKSTEP_TEST_FAULT: "pushed:2" }], {
    during: async ({ recorder, address, add }) => {
      await recorder.until(({ type }) => type === "worker.lost");
      await recorder.until(
        (event) => event.type === "phase.changed" && /no worker is left/.test(event.detail ?? ""),
      );
      add(spawnWorker(address));
    },
  });
  assertSameAsOracle(result);
  await assertAllLeft(result, 1);
});

test("a worker that joins in the middle takes part", limit, async () => {
  const early = { LOCKSTEP_TEST_STALL: "computed:1", LOCKSTEP_TEST_NAME: "early" };
  const result = await run([early], {
    during: async ({ recorder, address, add, workers }) => {
      await recorder.until((event) => event.type === "step.completed");
      add(spawnWorker(address, { LOCKSTEP_TEST_NAME: "late" }));
      await recorder.until(
        (event) => event.type === "group.completed" && event.workerId === "late",
      );
      workers[0]?.process.send("go");
    },
  });
  assertSameAsOracle(result);
  assert.ok(result.recorder.of("group.completed").some(({ workerId }) => workerId === "late"));
  await assertAllLeft(result);
});

test("a worker that comes back late is told so and goes on", limit, async () => {
  const slow = { LOCKSTEP_TEST_STALL: "computed:0", LOCKSTEP_TEST_NAME: "slow" };
  const result = await run([slow], {
    overrides: { leaseTimeoutMs: 500 },
    during: async ({ recorder, address, add, workers }) => {
      await recorder.until(({ type }) => type === "group.leased");
      add(spawnWorker(address, { LOCKSTEP_TEST_STALL: "computed:2", LOCKSTEP_TEST_NAME: "other" }));
      // The other one has done the step alone, and waits in a later one.
      await recorder.until((event) => event.type === "group.leased" && event.step === 2);
      workers[0]?.process.send("go");
      await recorder.until((event) => event.type === "group.completed" && event.step === 2);
      workers[1]?.process.send("go");
    },
  });
  assertSameAsOracle(result);
  // Where the other one was free before the deadline, it did the group beside the slow one.
  const isOverdue = result.recorder
    .of("group.requeued")
    .some(({ workerId, reason }) => workerId === "slow" && /deadline/.test(reason));
  const isDoneBeside = result.recorder
    .of("group.leased")
    .some(({ workerId, step, isBackup }) => workerId === "other" && step === 0 && isBackup);
  assert.ok(isOverdue || isDoneBeside);
  await assertAllLeft(result);
  assert.ok(
    result.workers[0]?.facts.some((fact) => (fact as { stale?: boolean }).stale === true),
    "the slow worker was told that its result was stale",
  );
});
