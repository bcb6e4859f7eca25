import assert from "node:assert/strict";
import { before, test } from "node:test";
import { Coordinator } from "#coordinator/coordinator";
import type { CheckpointState, CoordinatorOptions, Snapshot } from "#coordinator/options";
import type { ElementRange } from "#lib/core/parameter-layout";
import type { ShardPiece } from "#lib/core/shard-arrays";
import {
  coordinatorOptions,
  EventRecorder,
  evaluationBatches,
  type Oracle,
  sequentialOracle,
  spawnWorker,
} from "#tests/support/cluster";

const totalSteps = 4;
const limit = { timeout: 60_000 };
let oracle: Oracle;
before(async () => {
  oracle = await sequentialOracle(totalSteps);
});

interface Saved {
  readonly snapshot: Snapshot;
  readonly state: CheckpointState;
}

/** The coordinator may reuse a snapshot's memory. */
const copyOf = (snapshot: Snapshot): Snapshot =>
  snapshot.map(({ range, masters, states }) => ({
    range,
    masters: masters.slice(),
    states: Object.fromEntries(Object.entries(states).map(([slot, each]) => [slot, each.slice()])),
  }));

async function started(
  saved: Saved[],
  overrides: Partial<CoordinatorOptions>,
  saving: { readonly atEnd?: boolean } = {},
): Promise<{ coordinator: Coordinator; recorder: EventRecorder; address: string }> {
  const recorder = new EventRecorder();
  const save: NonNullable<CoordinatorOptions["checkpointing"]>["save"] = async (
    snapshot,
    state,
  ) => {
    saved.push({ state, snapshot: copyOf(snapshot) });
    return { directory: `checkpoint-${state.step}`, bytes: 1 };
  };
  const options = { checkpointing: { everySteps: 0, save, ...saving }, ...overrides };
  const coordinator = new Coordinator(coordinatorOptions(totalSteps, recorder.bus, options));
  const { controlAddress: address } = await coordinator.start();
  return { coordinator, recorder, address };
}

/** Options of a run that goes on from what was saved. */
function goingOn({ snapshot, state }: Saved): Partial<CoordinatorOptions> {
  const read = (
    arrayOf: (part: ShardPiece) => Float32Array | undefined,
    range: ElementRange,
    into: Float32Array,
  ): void => {
    for (const part of snapshot) {
      const start = Math.max(range.start, part.range.start);
      const end = Math.min(range.end, part.range.end);
      if (start >= end) continue;
      const values = arrayOf(part)?.subarray(start - part.range.start, end - part.range.start);
      into.set(values ?? [], start - range.start);
    }
  };
  return {
    loadMasters: async (range, into) => read(({ masters }) => masters, range, into),
    resume: {
      state,
      loadStates: async (range, into) => {
        for (const [slot, array] of Object.entries(into)) {
          read(({ states }) => states[slot], range, array);
        }
      },
    },
  };
}

test(
  "a save that is asked for comes after the step in progress, once, and the run goes on",
  limit,
  async () => {
    const saved: Saved[] = [];
    const { coordinator, recorder, address } = await started(saved, {});
    const answers: boolean[] = [];
    recorder.bus.subscribe((event) => {
      // In the middle of the second step.
      if (event.type !== "group.leased" || event.step !== 1 || answers.length > 0) return;
      answers.push(coordinator.requestSave(), coordinator.requestSave());
    });
    const worker = spawnWorker(address);
    const outcome = await coordinator.run();
    assert.equal((await worker.exited).code, 0);
    assert.deepEqual(answers, [true, false]);
    assert.deepEqual(
      saved.map(({ state }) => state.step),
      [2],
    );
    assert.equal(outcome.outcome, "finished");
    assert.equal(outcome.mastersSha256, oracle.mastersSha256);
    const again = await started([], goingOn(saved[0] as Saved));
    spawnWorker(again.address);
    assert.equal((await again.coordinator.run()).mastersSha256, oracle.mastersSha256);
  },
);

test("an evaluation that a stop cut short is made when the run goes on", limit, async () => {
  const evaluation = { batches: evaluationBatches, atStart: true, atEnd: true, everySteps: 2 };
  const saved: Saved[] = [];
  const { coordinator, recorder, address } = await started(saved, { evaluation });
  let numEvaluations = 0;
  recorder.bus.subscribe((event) => {
    if (event.type !== "phase.changed" || event.phase !== "evaluating") return;
    numEvaluations += 1;
    if (numEvaluations === 2) coordinator.requestStop();
  });
  spawnWorker(address);
  assert.equal((await coordinator.run()).outcome, "interrupted");
  const [stopped] = saved;
  assert.equal(stopped?.state.step, 2);
  const evaluated = (state: CheckpointState): number[] =>
    state.logHistory.filter((entry) => "eval_loss" in entry).map(({ step }) => step);
  assert.deepEqual(evaluated(stopped.state), [0]);

  const again = await started([], { evaluation, ...goingOn(stopped) });
  spawnWorker(again.address);
  const outcome = await again.coordinator.run();
  assert.deepEqual(evaluated(outcome.state), [0, 2, 4]);
  assert.equal(outcome.mastersSha256, oracle.mastersSha256);
});

test("a stop in the evaluation after the last step leaves the last checkpoint", limit, async () => {
  const saved: Saved[] = [];
  const { coordinator, recorder, address } = await started(
    saved,
    {
      evaluation: { batches: evaluationBatches, atStart: false, atEnd: true, everySteps: 0 },
    },
    { atEnd: true },
  );
  recorder.bus.subscribe((event) => {
    if (event.type === "phase.changed" && event.phase === "evaluating") coordinator.requestStop();
  });
  const worker = spawnWorker(address);
  const { outcome, step } = await coordinator.run();
  assert.equal((await worker.exited).code, 0);
  assert.deepEqual([outcome, step], ["finished", totalSteps]);
  assert.deepEqual(
    saved.map(({ state }) => state.step),
    [totalSteps],
  );
});

test("where nothing is left to train, nobody has to come", limit, async () => {
  const saved: Saved[] = [];
  const evaluation = { batches: evaluationBatches, atStart: true, atEnd: true, everySteps: 2 };
  const checkpointing = {
    everySteps: 4,
    save: async (snapshot: Snapshot, state: CheckpointState) => {
      saved.push({ state, snapshot: copyOf(snapshot) });
      return { directory: "checkpoint-4", bytes: 1 };
    },
  };
  const generation = {
    promptText: "",
    ...{ prompt: [1, 2], maxNewTokens: 2, endTokenIds: [], decode: () => "text" },
  };
  const options = { evaluation, generation };
  const { coordinator, address } = await started([], { ...options, checkpointing });
  spawnWorker(address);
  await coordinator.run();
  const again = await started([], { ...options, ...goingOn(saved[0] as Saved) });
  const outcome = await again.coordinator.run();
  assert.equal(outcome.mastersSha256, oracle.mastersSha256);
  assert.equal(outcome.state.logHistory.filter((entry) => "eval_loss" in entry).length, 3);
});
