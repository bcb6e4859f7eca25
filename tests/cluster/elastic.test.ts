import assert from "node:assert/strict";
import { test } from "node:test";
import type { CoordinatorOptions } from "#coordinator/options";
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

/** A run whose workers a test adds, and that ends with the bits of one thread. */
async function elasticRun(
  overrides: Partial<CoordinatorOptions>,
  act: (parts: {
    readonly recorder: EventRecorder;
    readonly add: (env?: Readonly<Record<string, string>>) => TestWorker;
  }) => Promise<void>,
): Promise<{ readonly recorder: EventRecorder; readonly workers: readonly TestWorker[] }> {
  const { coordinator, recorder, address } = await startCoordinator(totalSteps, overrides);
  const workers: TestWorker[] = [];
  const add = (env = {}): TestWorker => {
    const worker = spawnWorker(address, env);
    workers.push(worker);
    void worker.exited.then(({ code, signal }) =>
      coordinator.reportWorkerExit(worker.incarnation, `exit ${code ?? signal}`),
    );
    return worker;
  };
  const [outcome] = await Promise.all([coordinator.run(), act({ recorder, add })]);
  assert.equal(outcome.mastersSha256, oracle.mastersSha256);
  return { recorder, workers };
}

const outcomeOf = ({ facts }: TestWorker): unknown =>
  facts.find((fact) => (fact as { outcome?: string }).outcome !== undefined);

const toldBy = ({ facts }: TestWorker): string =>
  facts.map((fact) => (fact as { told?: string }).told ?? "").join("\n");

test("a worker that is asked to leave finishes its group, and says goodbye", limit, async () => {
  const { recorder, workers } = await elasticRun({}, async ({ recorder, add }) => {
    add({ LOCKSTEP_TEST_DRAIN: "leased:1", LOCKSTEP_TEST_DRAIN_GRACE_MS: "60000" });
    await recorder.until(({ type }) => type === "worker.left");
    add();
  });
  const [drained] = workers as [TestWorker];
  assert.equal((await drained.exited).code, 0);
  // All groups of the first step, and the one that it had in the second.
  assert.deepEqual(outcomeOf(drained), { outcome: "left", numGroups: 5 });
  assert.deepEqual(recorder.of("group.requeued"), []);
  assert.deepEqual(recorder.of("worker.lost"), []);
});

test("what does not fit into the grace period is given back", limit, async () => {
  const { recorder, workers } = await elasticRun({}, async ({ recorder, add }) => {
    add({
      LOCKSTEP_TEST_DRAIN: "leased:1",
      LOCKSTEP_TEST_STALL: "leased:1",
      LOCKSTEP_TEST_DRAIN_GRACE_MS: "50",
    });
    await recorder.until(({ type }) => type === "worker.left");
    add();
  });
  const [drained] = workers as [TestWorker];
  assert.equal((await drained.exited).code, 0);
  assert.deepEqual(outcomeOf(drained), { outcome: "left", numGroups: 4 });
  assert.match(toldBy(drained), /what is in work is given back: it is not done within 0.05 s/);
  assert.deepEqual(
    recorder.of("group.requeued").map(({ step, group }) => [step, group]),
    [[1, 0]],
  );
  assert.deepEqual(recorder.of("worker.lost"), []);
});

test("a worker that joins in a step has its parameters before it has a group", limit, async () => {
  const { workers } = await elasticRun({}, async ({ recorder, add }) => {
    const first = add({ LOCKSTEP_TEST_STALL: "leased:1" });
    await recorder.until((event) => event.type === "group.leased" && event.step === 1);
    const second = add();
    second.process.on("message", (fact) => {
      if ((fact as { phase?: string }).phase === "leased") first.process.send("go");
    });
  });
  const facts = (workers[1]?.facts ?? []) as { phase?: string; loaded?: number; step?: number }[];
  const leased = facts.findIndex(({ phase }) => phase === "leased");
  assert.equal(facts[leased]?.step, 1);
  // What it had loaded before it asked for the first time.
  const asked = facts.findIndex(({ phase }) => phase === "asking");
  assert.deepEqual(
    facts.slice(0, asked).filter(({ loaded }) => loaded !== undefined),
    [{ loaded: 1 }],
  );
});

test("below min_workers nothing begins, and what is begun is finished", limit, async () => {
  const waits = (numHere: number) => (event: { type: string; detail?: string }) =>
    event.type === "phase.changed" && event.detail?.startsWith(`${numHere} of the 2 workers`);
  const overrides = {
    minWorkers: 2,
    evaluation: { batches: evaluationBatches, atStart: true, atEnd: true, everySteps: 0 },
  };
  const { recorder } = await elasticRun(overrides, async ({ recorder, add }) => {
    const first = add({
      LOCKSTEP_TEST_STALL: "leased:0",
      LOCKSTEP_TEST_DRAIN: "computed:0",
    });
    await recorder.until((event) => waits(1)(event) === true);
    assert.deepEqual(recorder.of("group.leased"), []);
    assert.deepEqual(recorder.of("evaluation.completed"), []);
    const second = add({ LOCKSTEP_TEST_STALL: "leased:0" });
    // Each has a group, and neither may go on without the other.
    await recorder.until(
      () => new Set(recorder.of("group.leased").map(({ workerId }) => workerId)).size === 2,
    );
    first.process.send("go");
    await recorder.until(({ type }) => type === "worker.left");
    assert.deepEqual(recorder.of("step.completed"), []);
    second.process.send("go");
    await recorder.until((event) => {
      const since = recorder.events.findIndex(({ type }) => type === "worker.left");
      return recorder.events.indexOf(event) > since && waits(1)(event) === true;
    });
    // The step in which it left was finished by the other one, and no other was begun.
    assert.equal(recorder.of("step.completed").length, 1);
    assert.ok(recorder.of("group.leased").every(({ step }) => step === 0));
    add();
  });
  assert.equal(recorder.of("step.completed").length, totalSteps);
});

test(
  "a worker beyond max_workers waits, and takes the place of one that leaves",
  limit,
  async () => {
    const { recorder, workers } = await elasticRun({ maxWorkers: 1 }, async ({ recorder, add }) => {
      const first = add({
        LOCKSTEP_TEST_NAME: "first",
        LOCKSTEP_TEST_STALL: "leased:1",
        LOCKSTEP_TEST_DRAIN: "computed:1",
      });
      await recorder.until(({ type }) => type === "worker.joined");
      add({ LOCKSTEP_TEST_NAME: "second" });
      await recorder.until(({ type }) => type === "note");
      // Now it computes, and leaves.
      first.process.send("go");
    });
    const [first, second] = workers as [TestWorker, TestWorker];
    assert.equal((await first.exited).code, 0);
    assert.equal((await second.exited).code, 0);
    assert.match(
      recorder.of("note").map(({ text }) => text)[0] ?? "",
      /^second \(.*, pid \d+\) waits: max_workers is 1, and as many take part/,
    );
    assert.match(toldBy(second), /waits at .*: max_workers is 1/);
    assert.deepEqual(
      recorder.of("worker.joined").map(({ workerId }) => workerId),
      ["first", "second"],
    );
  },
);

test("a worker that hangs and lives loses its place to one that waits for it", limit, async () => {
  const { recorder, workers } = await elasticRun(
    { maxWorkers: 1, leaseTimeoutMs: 500 },
    async ({ recorder, add }) => {
      const first = add({ LOCKSTEP_TEST_NAME: "first", LOCKSTEP_TEST_STALL: "leased:1" });
      await recorder.until((event) => event.type === "group.leased" && event.step === 1);
      add({ LOCKSTEP_TEST_NAME: "second" });
      await recorder.until(
        (event) => event.type === "worker.joined" && event.workerId === "second",
      );
      // Else it would wait for a place in its turn, and here the other one may well be slow.
      first.process.kill("SIGKILL");
    },
  );
  assert.equal((await workers[1]?.exited)?.code, 0);
  const [lost, ...others] = recorder.of("worker.lost");
  assert.deepEqual(others, []);
  assert.equal(lost?.workerId, "first");
  assert.match(lost.reason, /asked for no work for more than 3 x lease_timeout_ms; others wait/);
});
