import assert from "node:assert/strict";
import { test } from "node:test";
import { evaluationBatches } from "#tests/support/cluster";
import { spawnWorker } from "#tests/support/spawned-worker";
import { goesOnFrom, type Saved, savesInto } from "#tests/support/saved-run";
import { limit, startCoordinator } from "#tests/support/started-coordinator";

// Where the result is made again from the last save, no worker is there any more.

for (const [what, evaluation] of [
  ["general rows alone", undefined],
  [
    "evaluations that are not due at the end",
    { batches: evaluationBatches, atStart: false, atEnd: false, everySteps: 2 },
  ],
] as const) {
  test(`a run ends from its last save without workers: ${what}`, limit, async () => {
    const totalSteps = 3;
    const saved: Saved[] = [];
    const overrides = {
      general: { batches: evaluationBatches.slice(1), numRows: 8 },
      ...(evaluation === undefined ? {} : { evaluation }),
      checkpointing: { everySteps: 0, atEnd: true, save: savesInto(saved) },
    };
    const { coordinator, address } = await startCoordinator(totalSteps, overrides);
    const worker = spawnWorker(address);
    const first = await coordinator.run();
    assert.equal((await worker.exited).code, 0);
    const last = saved.at(-1);
    assert.equal(last?.state.step, totalSteps);
    const again = await startCoordinator(totalSteps, { ...overrides, ...goesOnFrom(last) });
    const { mastersSha256, outcome } = await again.coordinator.run();
    assert.deepEqual([outcome, mastersSha256], ["finished", first.mastersSha256]);
    assert.deepEqual(again.recorder.of("general.evaluated"), []);
  });
}
