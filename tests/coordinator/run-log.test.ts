import assert from "node:assert/strict";
import { test } from "node:test";
import { RunLog } from "#coordinator/run-log";
import type { StepCompleted } from "#lib/core/events";

const totalSteps = 5;
const completed = (step: number, loss: number): StepCompleted => ({
  type: "step.completed",
  step,
  totalSteps,
  epoch: step / totalSteps,
  loss,
  learningRate: 1e-3,
  gradientNorm: 1,
  numRows: 2,
  numTokens: 16,
  stepSeconds: 1,
  syncSeconds: 0.5,
  tokensPerSecond: 16,
});

/** [step, loss] of the entries after five steps with losses 1, 2, 4, 8 and 16. */
function logged(logsFirstStep: boolean): [number, number | null | undefined][] {
  const log = new RunLog({ loggingSteps: 2, logsFirstStep });
  for (let step = 1; step <= totalSteps; step++) {
    log.stepCompleted(completed(step, 2 ** (step - 1)), {
      seconds: step,
      numInputTokens: 0,
      sessionTokens: 0,
    });
  }
  return log.entries().map((entry) => [entry.step, entry["loss"]]);
}

test("an entry has the mean loss since the entry before; the last step has one", () => {
  assert.deepEqual(logged(false), [
    [2, 1.5],
    [4, 6],
    [5, 16],
  ]);
});

test("logging_first_step adds the first step and takes it out of the second entry", () => {
  assert.deepEqual(logged(true), [
    [1, 1],
    [2, 2],
    [4, 6],
    [5, 16],
  ]);
});
