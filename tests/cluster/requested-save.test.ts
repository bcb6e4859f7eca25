import assert from "node:assert/strict";
import { test } from "node:test";
import type { CheckpointState } from "#coordinator/options";
import type { LockstepEvent } from "#lib/core/events";
import { evaluationBatches, sequentialOracle } from "#tests/support/cluster";
import { spawnWorker } from "#tests/support/spawned-worker";
import { goesOnFrom, type Saved, savesInto } from "#tests/support/saved-run";
import { limit, startCoordinator } from "#tests/support/started-coordinator";

const totalSteps = 4;
const oracle = await sequentialOracle(totalSteps);

test(
  "a save that is asked for comes after the step in progress, once, and the run goes on",
  limit,
  async () => {
    const saved: Saved[] = [];
    const { coordinator, recorder, address } = await startCoordinator(totalSteps, {
      checkpointing: { everySteps: 0, save: savesInto(saved) },
    });
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
    const again = await startCoordinator(totalSteps, goesOnFrom(saved[0] as Saved));
    spawnWorker(again.address);
    assert.equal((await again.coordinator.run()).mastersSha256, oracle.mastersSha256);
  },
);

test("an evaluation that a stop cut short is made when the run goes on", limit, async () => {
  const evaluation = { batches: evaluationBatches, atStart: true, atEnd: true, everySteps: 2 };
  const saved: Saved[] = [];
  const { coordinator, recorder, address } = await startCoordinator(totalSteps, {
    evaluation,
    checkpointing: { everySteps: 0, save: savesInto(saved) },
  });
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

  const again = await startCoordinator(totalSteps, { evaluation, ...goesOnFrom(stopped) });
  spawnWorker(again.address);
  const outcome = await again.coordinator.run();
  assert.deepEqual(evaluated(outcome.state), [0, 2, 4]);
  assert.equal(outcome.mastersSha256, oracle.mastersSha256);
});

for (const where of ["the evaluation after the last step", "the last step"]) {
  test(`a stop in ${where} leaves the evaluation to the life that goes on`, limit, async () => {
    const evaluation = { batches: evaluationBatches, atStart: false, atEnd: true, everySteps: 0 };
    const saved: Saved[] = [];
    const { coordinator, recorder, address } = await startCoordinator(totalSteps, {
      evaluation,
      checkpointing: { everySteps: 0, atEnd: true, save: savesInto(saved) },
    });
    const isThere = (event: LockstepEvent): boolean =>
      where === "the last step"
        ? event.type === "group.leased" && event.step === totalSteps - 1
        : event.type === "phase.changed" && event.phase === "evaluating";
    recorder.bus.subscribe((event) => {
      if (isThere(event)) coordinator.requestStop();
    });
    const worker = spawnWorker(address);
    const { outcome, isWhole, step } = await coordinator.run();
    await worker.exited;
    assert.deepEqual([outcome, isWhole, step], ["finished", false, totalSteps]);
    assert.deepEqual(recorder.of("evaluation.completed"), []);
    assert.deepEqual(
      saved.map(({ state }) => state.step),
      [totalSteps],
    );
    const again = await startCoordinator(totalSteps, {
      evaluation,
      ...goesOnFrom(saved[0] as Saved),
    });
    spawnWorker(again.address);
    const after = await again.coordinator.run();
    assert.deepEqual([after.outcome, after.isWhole], ["finished", true]);
    assert.equal(again.recorder.of("evaluation.completed").length, 1);
    assert.equal(after.mastersSha256, oracle.mastersSha256);
  });
}

test("a save that is asked for in the evaluation after the last step is made", limit, async () => {
  const saved: Saved[] = [];
  const { coordinator, recorder, address } = await startCoordinator(totalSteps, {
    evaluation: { batches: evaluationBatches, atStart: false, atEnd: true, everySteps: 0 },
    checkpointing: { everySteps: 0, save: savesInto(saved) },
  });
  const answers: boolean[] = [];
  recorder.bus.subscribe((event) => {
    if (event.type !== "phase.changed" || event.phase !== "evaluating") return;
    answers.push(coordinator.requestSave());
  });
  spawnWorker(address);
  assert.equal((await coordinator.run()).outcome, "finished");
  assert.deepEqual(answers, [true]);
  assert.deepEqual(
    saved.map(({ state }) => state.step),
    [totalSteps],
  );
});

test("where nothing is left to train, nobody has to come", limit, async () => {
  const saved: Saved[] = [];
  const evaluation = { batches: evaluationBatches, atStart: true, atEnd: true, everySteps: 2 };
  const checkpointing = { everySteps: 4, save: savesInto(saved) };
  const generation = {
    promptText: "",
    ...{ prompt: [1, 2], maxNewTokens: 2, endTokenIds: [], decode: () => "text" },
  };
  const options = { evaluation, generation };
  const { coordinator, address } = await startCoordinator(totalSteps, {
    ...options,
    checkpointing,
  });
  spawnWorker(address);
  await coordinator.run();
  const again = await startCoordinator(totalSteps, {
    ...options,
    ...goesOnFrom(saved[0] as Saved),
  });
  const outcome = await again.coordinator.run();
  assert.equal(outcome.mastersSha256, oracle.mastersSha256);
  assert.equal(outcome.state.logHistory.filter((entry) => "eval_loss" in entry).length, 3);
});
