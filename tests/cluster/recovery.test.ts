import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import type { CoordinatorOptions } from "#coordinator/options";
import type { RecoveredRun } from "#coordinator/run-state";
import {
  coordinatorOptions,
  EventRecorder,
  evaluationBatches,
  float16Job,
  float16Updates,
  sequentialOracle,
} from "#tests/support/cluster";
import { type Death, runKilledAt, type SurvivedRun } from "#tests/support/killed-coordinators";
import { type Saved, savesInto } from "#tests/support/saved-run";
import { limit as usualLimit } from "#tests/support/started-coordinator";

// A coordinator dies at each call of a run, before and after the call has had its effect; the next one goes on.

const folder = await mkdtemp(join(tmpdir(), "lockstep-recovery-"));
after(() => rm(folder, { recursive: true }));

/** Deaths of a case, spread over its calls; all of them with LOCKSTEP_ALL_DEATHS=1. */
const deathsInTests = 12;
const runsAtOnce = 6;
const isLong = process.env["LOCKSTEP_ALL_DEATHS"] === "1";
const limit = isLong ? { timeout: 3_600_000 } : usualLimit;

/** Without what clocks say. */
const timeless = ({ outcome }: SurvivedRun): unknown => {
  const clock = /runtime|per_second|seconds/;
  const strip = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(strip);
    if (typeof value !== "object" || value === null) return value;
    const kept = Object.entries(value).filter(([key]) => !clock.test(key));
    return Object.fromEntries(kept.map(([key, each]) => [key, strip(each)]));
  };
  const { snapshot: _, releaseShards: __, ...rest } = outcome;
  return strip(rest);
};

async function survivesAll(
  name: string,
  totalSteps: number,
  overrides: Partial<CoordinatorOptions>,
): Promise<SurvivedRun> {
  const run = (death: Death): Promise<SurvivedRun> =>
    runKilledAt(totalSteps, folder, death, { plannedWorkers: 1, ...overrides });
  const undisturbed = await run({ diesAt: -1, isAfter: false });
  assert.equal(undisturbed.numLives, 1);
  const { calls, outcome } = undisturbed;
  const expected = timeless(undisturbed);
  const all = calls.flatMap((_, call) => [
    { diesAt: call, isAfter: false, again: 8 + ((call * 7) % 23) },
    { diesAt: call, isAfter: true },
  ]);
  const every = isLong ? 1 : all.length / deathsInTests;
  const deaths = all.filter(
    (_, index) => Math.floor(index / every) !== Math.floor((index - 1) / every),
  );
  const next = deaths.values();
  const failures: string[] = [];
  const work = async (): Promise<void> => {
    for (const death of next) {
      const { diesAt, isAfter, again } = death;
      const then = again === undefined ? "" : `, then after call ${again}`;
      const where = `${name}: ${isAfter ? "after" : "before"} call ${diesAt}, ${calls[diesAt]}${then}`;
      try {
        const survived = await run(death);
        // After its last record a run is over, and its worker leaves.
        const { numLives } = survived;
        if (diesAt <= calls.lastIndexOf("state")) assert.ok(numLives > 1, where);
        assert.equal(survived.outcome.mastersSha256, outcome.mastersSha256, where);
        assert.deepEqual(timeless(survived), expected, where);
        assert.equal(survived.numEngines, 1, `${where}: engines`);
        for (const status of survived.statuses) {
          assert.equal(status.version, outcome.state.numUpdates, where);
          assert.equal(status.numApplied, outcome.state.numUpdates, `${where}: steps applied`);
        }
        // Only a death before anything was loaded and written has nothing to recover.
        const isEarly = diesAt <= calls.indexOf("openStep");
        assert.ok(survived.numRecovered === numLives - 1 || isEarly, `${where}: not recovered`);
      } catch (error) {
        failures.push(`${where}: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
  };
  await Promise.all(Array.from({ length: runsAtOnce }, work));
  assert.deepEqual(failures, []);
  console.log(`${name}: ${deaths.length} deaths in ${calls.length} calls`);
  return undisturbed;
}

test("a run with evaluations, samples and saves survives a death at any call", limit, async () => {
  const oracle = await sequentialOracle(3);
  const { outcome } = await survivesAll("evaluations", 3, {
    evaluation: { batches: evaluationBatches, atStart: true, atEnd: true, everySteps: 2 },
    general: { batches: evaluationBatches.slice(1), numRows: 8 },
    generation: {
      ...{ promptText: "p", prompt: [1, 2], maxNewTokens: 2, endTokenIds: [] },
      decode: (tokens) => tokens.join(" "),
    },
    checkpointing: {
      everySteps: 2,
      save: async (_snapshot, { step }) => ({ directory: `checkpoint-${step}`, bytes: 1 }),
    },
    loggingSteps: 2,
  });
  assert.equal(outcome.mastersSha256, oracle.mastersSha256);
});

test("so does one whose gradients overflow", limit, async () => {
  const oracle = await sequentialOracle(3, float16Job);
  const { outcome } = await survivesAll("overflow", 3, {
    job: float16Job,
    updates: float16Updates,
  });
  assert.equal(outcome.mastersSha256, oracle.mastersSha256);
  assert.ok(outcome.state.numUpdates < 3, "no step overflowed");
});

test("so does one that measures the Fisher information and sums of tensors", limit, async () => {
  const { updates, plan } = coordinatorOptions(3, new EventRecorder().bus);
  await survivesAll("measurements", 2, {
    updates: {
      ...updates,
      optimizer: {
        name: "adafactor",
        settings: {
          ...{ scaleParameter: true, clipThreshold: 1, decayRate: -0.8, squareEpsilon: 1e-30 },
          ...{ scaleEpsilon: 1e-3, beta1: 0.9, weightDecay: 0 },
        },
        ewcLambda: 3,
      },
    },
    fisher: {
      ...{ numRows: 32, numRounds: 2, maxRowsPerGroup: 4, normalises: true },
      microBatches: (round, group) => plan.microBatches(100 + round, group),
    },
  });
});

test("best weights whose lost save is repeated are what they were", limit, async () => {
  const run = async (death: Death, isFirstLost: boolean) => {
    const saved: Saved[] = [];
    const keep = savesInto(saved);
    let numSaves = 0;
    let died = (): void => {};
    const lost = new Promise<void>((resolve) => {
      died = resolve;
    });
    const overrides: Partial<CoordinatorOptions> = {
      plannedWorkers: 1,
      evaluation: {
        ...{ batches: evaluationBatches, atStart: false, atEnd: false, everySteps: 1 },
        best: { metric: "loss", greaterIsBetter: false },
      },
      checkpointing: {
        ...{ everySteps: 0, whenBest: true, copyLimitBytes: 0 },
        save: async (...given) => {
          numSaves += 1;
          if (numSaves > 1 || !isFirstLost) return keep(...given);
          await lost;
          throw new Error("it died with its process");
        },
      },
    };
    const goesOn = (left: RecoveredRun): RecoveredRun => {
      const state = { ...left.state, savedStep: 0 };
      return { ...left, state, savesAtOnce: true, keepsBest: true };
    };
    const survived = await runKilledAt(3, folder, death, overrides, { died, goesOn });
    return { survived, first: saved[0] };
  };
  const undisturbed = await run({ diesAt: -1, isAfter: false }, false);
  const { calls, outcome } = undisturbed.survived;
  // Of the step that follows the first evaluation.
  const diesAt = calls.indexOf("agreed", calls.indexOf("agreed") + 1);
  const { survived, first } = await run({ diesAt, isAfter: true }, true);
  assert.equal(survived.numRecovered, 1);
  assert.equal(survived.outcome.mastersSha256, outcome.mastersSha256);
  assert.equal(first?.state.step, 1);
  const masters = (of: Saved | undefined) => of?.snapshot.map((part) => part.masters);
  assert.deepEqual(masters(first), masters(undisturbed.first));
  for (const { numApplied } of survived.statuses) assert.equal(numApplied, 3);
});
