import assert from "node:assert/strict";
import { test } from "node:test";
import type { WorkerJob } from "#lib/core/job";
import { evaluationBatches, sequentialOracle, testJob } from "#tests/support/cluster";
import { spawnWorker } from "#tests/support/spawned-worker";
import { startCoordinator } from "#tests/support/started-coordinator";

/**
 * Runs in which workers join, leave in order and are killed at seeded moments, and runs with a fixed number of
 * workers: all end with the bits of one thread. LOCKSTEP_JOIN_LEAVE_SEEDS is how many are drawn.
 */
const numSeeds = Number(process.env["LOCKSTEP_JOIN_LEAVE_SEEDS"] ?? 2);
const totalSteps = 5;
const oracle = await sequentialOracle(totalSteps);

/** Whole numbers below a limit that depend on the seed alone. */
function drawn(seed: number): (limit: number) => number {
  let state = (seed + 1) * 0x9e3779b1;
  return (limit) => {
    state = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9;
    return (Math.imul(state ^ (state >>> 13), 0x297a2d39) >>> 0) % limit;
  };
}

const phases = ["leased", "computed", "pushing", "pushed"];

/** What each of the workers does that come one after the other. */
function scheduleOf(seed: number): readonly Readonly<Record<string, string>>[] {
  const next = drawn(seed);
  const numComing = 2 + next(4);
  return Array.from({ length: numComing }, () => {
    const at = `${phases[next(phases.length)]}:${next(totalSteps)}`;
    const fate = next(3);
    if (fate === 0) return { LOCKSTEP_TEST_DRAIN: at };
    if (fate === 1) return { LOCKSTEP_TEST_FAULT: at };
    // One that hangs for good would keep its place under max_workers.
    const stall = at.replace(/^push.*:/, "leased:");
    return {
      ...{ LOCKSTEP_TEST_DRAIN: stall, LOCKSTEP_TEST_STALL: stall },
      LOCKSTEP_TEST_DRAIN_GRACE_MS: "20",
    };
  });
}

const evaluation = { batches: evaluationBatches, atStart: true, atEnd: true, everySteps: 2 };

async function endOf(
  envs: readonly Readonly<Record<string, string>>[],
  overrides: Parameters<typeof startCoordinator>[1],
): Promise<string> {
  const { coordinator, recorder, address } = await startCoordinator(totalSteps, {
    evaluation,
    ...overrides,
  });
  const add = (env: Readonly<Record<string, string>>): void => {
    const worker = spawnWorker(address, env);
    void worker.exited.then(({ code, signal }) =>
      coordinator.reportWorkerExit(worker.incarnation, `exit ${code ?? signal}`),
    );
  };
  // One more comes whenever a group of another step is given out, and one that stays when somebody goes.
  const coming = [...envs];
  const steps = new Set<number>();
  recorder.bus.subscribe((event) => {
    if (event.type === "group.leased" && !steps.has(event.step)) {
      steps.add(event.step);
      const env = coming.shift();
      if (env !== undefined) add(env);
    }
    const isGone = event.type === "worker.lost" || event.type === "worker.left";
    if (isGone && event.reason !== "the job is over") add({});
  });
  for (let n = 0; n < (overrides?.minWorkers ?? 1); n++) add(coming.shift() ?? {});
  const { mastersSha256 } = await coordinator.run();
  return mastersSha256;
}

for (let seed = 0; seed < numSeeds; seed++) {
  test(`seed ${seed}: workers that come and go leave no trace`, { timeout: 240_000 }, async () => {
    const [minWorkers, maxWorkers] = seed % 2 === 0 ? [1, 2] : [2, 3];
    const fingerprintSteps = seed % 3;
    const job: WorkerJob = { ...testJob, ...(fingerprintSteps > 0 ? { fingerprints: true } : {}) };
    const numShards = 1 + (seed % 3);
    const overrides = { job, minWorkers, maxWorkers, fingerprintSteps, numShards };
    assert.equal(await endOf(scheduleOf(seed), overrides), oracle.mastersSha256);
  });
}
