import assert from "node:assert/strict";
import { test } from "node:test";
import type { CoordinatorOptions, RunOutcome } from "#coordinator/options";
import {
  type EventRecorder,
  float16Job,
  float16Updates,
  sequentialOracle,
} from "#tests/support/cluster";
import { spawnWorker } from "#tests/support/spawned-worker";
import { limit, startCoordinator } from "#tests/support/started-coordinator";
import { goesOnFrom, type Saved, savesInto } from "#tests/support/saved-run";

// Whether a step of float16 overflowed is one decision for all workers and shards.

const totalSteps = 8;
const oracle = await sequentialOracle(totalSteps, float16Job);

async function run(
  faults: readonly string[],
  overrides: Partial<CoordinatorOptions> = {},
): Promise<{ readonly outcome: RunOutcome; readonly recorder: EventRecorder }> {
  const { coordinator, recorder, address } = await startCoordinator(totalSteps, {
    ...{ job: float16Job, updates: float16Updates },
    ...overrides,
  });
  const workers = faults.map((fault) =>
    spawnWorker(address, fault === "" ? {} : { LOCKSTEP_TEST_FAULT: fault }),
  );
  for (const worker of workers) {
    void worker.exited.then(({ signal }) =>
      coordinator.reportWorkerExit(worker.incarnation, `exit ${signal}`),
    );
  }
  return { outcome: await coordinator.run(), recorder };
}

const scalesOf = ({ recorder }: { readonly recorder: EventRecorder }) =>
  recorder.of("step.completed").map(({ lossScale }) => lossScale);

test("the scripted sequence skips steps, lets the scale grow and skips again", () => {
  assert.deepEqual(oracle.scales.slice(0, 6), [65_536, 32_768, 16_384, 16_384, 32_768, 16_384]);
  assert.deepEqual(oracle.norms.slice(0, 6).map(Number.isFinite), [
    false,
    false,
    true,
    true,
    false,
    true,
  ]);
});

for (const [numWorkers, numShards] of [
  [1, 1],
  [2, 3],
] as const) {
  test(
    `${numWorkers} workers and ${numShards} shards give the oracle's bits, scales and skipped steps`,
    limit,
    async () => {
      const result = await run(Array<string>(numWorkers).fill(""), { numShards });
      assert.equal(result.outcome.mastersSha256, oracle.mastersSha256);
      assert.deepEqual(scalesOf(result), oracle.scales);
      assert.deepEqual(
        result.recorder.of("step.completed").map(({ gradientNorm }) => gradientNorm),
        oracle.norms,
      );
      assert.equal(
        result.outcome.state.numUpdates,
        oracle.norms.filter((norm) => Number.isFinite(norm)).length,
      );
      // As transformers: the schedule waits for updates, the count of steps does not.
      const rates = result.recorder.of("step.completed").map(({ learningRate }) => learningRate);
      assert.deepEqual(rates.slice(0, 4), [1e-2, 1e-2, 1e-2, 1e-2 / 2]);
    },
  );
}

for (const fault of ["computed:0", "pushing:1", "pushed:4", "pushing:5"]) {
  test(`a worker killed while ${fault}, beside skipped steps, changes nothing`, limit, async () => {
    const result = await run([fault, ""]);
    assert.equal(result.outcome.mastersSha256, oracle.mastersSha256);
    assert.deepEqual(scalesOf(result), oracle.scales);
  });
}

test("a checkpoint of any step goes on with its scale to the same bits", limit, async () => {
  const saved: Saved[] = [];
  const checkpointing = { everySteps: 1, save: savesInto(saved) };
  const { outcome } = await run(["", ""], { checkpointing });
  assert.equal(outcome.mastersSha256, oracle.mastersSha256);
  // After a skipped step, and before the scale grows.
  for (const step of [2, 3]) {
    const point = saved.find(({ state }) => state.step === step);
    assert.ok(point !== undefined);
    const { scale, growthTracker } = point.state.lossScaler ?? {};
    assert.equal(scale, oracle.scales[step]);
    assert.equal(growthTracker, step === 3 ? 1 : 0);
    const again = await run([""], { numShards: 3, ...goesOnFrom(point) });
    assert.equal(again.outcome.mastersSha256, oracle.mastersSha256, `from step ${step}`);
    assert.deepEqual(scalesOf(again), oracle.scales.slice(step));
  }
});
