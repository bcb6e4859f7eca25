import assert from "node:assert/strict";
import { inMemory } from "#tests/support/kept-arrays";
import { test } from "node:test";
import type { CoordinatorOptions, Snapshot } from "#coordinator/options";
import { LockstepError } from "#lib/core/errors/index";
import { sequentialOracle } from "#tests/support/cluster";
import { spawnWorker } from "#tests/support/spawned-worker";
import { goesOnFrom, type Saved, savesInto } from "#tests/support/saved-run";
import { limit, startCoordinator } from "#tests/support/started-coordinator";

// Saves that read the shards' own memory while workers compute the next step.

const totalSteps = 5;
const oracle = await sequentialOracle(totalSteps);

type Save = NonNullable<CoordinatorOptions["checkpointing"]>["save"];

async function run(save: Save, { copyLimitBytes = 0, everySteps = 2 } = {}) {
  const started = await startCoordinator(totalSteps, {
    checkpointing: { everySteps, save, copyLimitBytes, retryMs: 60_000 },
  });
  spawnWorker(started.address);
  return { ...started, outcome: started.coordinator.run() };
}

const allOf = (snapshot: Snapshot): readonly Float32Array[] =>
  snapshot.flatMap(({ masters, states }) => [masters, ...Object.values(states)].map(inMemory));

test(
  "what a save reads stays as it is until all is read, and groups are computed meanwhile",
  limit,
  async () => {
    const copied: Saved[] = [];
    const byCopy = await run(savesInto(copied), { copyLimitBytes: Number.POSITIVE_INFINITY });
    await byCopy.outcome;
    const lent: Saved[] = [];
    const { outcome, recorder } = await run(async (snapshot, state, ...rest) => {
      const before = allOf(snapshot).map((array) => array.slice());
      const isLast = state.step === 4;
      // The next step's first group; the update has to wait for the end of this save.
      while (!isLast && !recorder.of("group.completed").some(({ step }) => step === state.step)) {
        await new Promise((resolve) => setImmediate(resolve));
      }
      assert.deepEqual(allOf(snapshot), before);
      return savesInto(lent)(snapshot, state, ...rest);
    });
    assert.equal((await outcome).mastersSha256, oracle.mastersSha256);
    assert.deepEqual(
      lent.map(({ snapshot }) => allOf(snapshot)),
      copied.map(({ snapshot }) => allOf(snapshot)),
    );
    assert.deepEqual(
      lent.map(({ state }) => state.step),
      [2, 4],
    );
    const again = await startCoordinator(totalSteps, goesOnFrom(lent[0] as Saved));
    spawnWorker(again.address);
    assert.equal((await again.coordinator.run()).mastersSha256, oracle.mastersSha256);
  },
);

test(
  "a save that fails gives way to the update, and the next step is saved in its place",
  limit,
  async () => {
    const saved: Saved[] = [];
    const failed: number[] = [];
    const { outcome, recorder } = await run(async (snapshot, state, tensorStates, onRead) => {
      if (state.step > 2) return savesInto(saved)(snapshot, state, tensorStates, onRead);
      failed.push(state.step);
      throw new LockstepError("E_DISK_FULL", { file: "checkpoint-2" });
    });
    assert.equal((await outcome).mastersSha256, oracle.mastersSha256);
    assert.ok(failed.length >= 1 && failed.every((step) => step === 2));
    assert.deepEqual(
      saved.map(({ state }) => state.step),
      [3, 4],
    );
    const told = recorder.of("note").map(({ text }) => text);
    assert.ok(
      told.some((text) => /checkpoint-2 was not saved.*a later one takes its place/.test(text)),
    );
  },
);

test("arrays that changed after they were read are not tried again", limit, async () => {
  const saved: Saved[] = [];
  const { outcome, recorder } = await run(async (snapshot, state, tensorStates, onRead) => {
    if (state.step > 2) return savesInto(saved)(snapshot, state, tensorStates, onRead);
    onRead();
    while (!recorder.of("step.completed").some(({ step }) => step === 3)) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    throw new LockstepError("E_DISK_FULL", { file: "checkpoint-2" });
  });
  assert.equal((await outcome).mastersSha256, oracle.mastersSha256);
  assert.deepEqual(
    recorder.of("checkpoint.failed").map(({ step, retryInMs }) => [step, retryInMs]),
    [[2, null]],
  );
  assert.equal(saved[0]?.state.step, 4);
});

test(
  "at the end of a run nothing changes the arrays: a save that was read is tried again",
  limit,
  async () => {
    const saved: Saved[] = [];
    let failures = 0;
    const { outcome } = await run(
      async (snapshot, state, tensorStates, onRead) => {
        onRead();
        failures += 1;
        if (failures === 1) throw new LockstepError("E_DISK_FULL", { file: "checkpoint-5" });
        return savesInto(saved)(snapshot, state, tensorStates, onRead);
      },
      { everySteps: totalSteps },
    );
    assert.equal((await outcome).mastersSha256, oracle.mastersSha256);
    assert.deepEqual([failures, saved.map(({ state }) => state.step)], [2, [5]]);
  },
);
