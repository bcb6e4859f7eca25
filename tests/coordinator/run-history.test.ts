import assert from "node:assert/strict";
import { test } from "node:test";
import type { CoordinatorOptions } from "#coordinator/options";
import { RunHistory } from "#coordinator/run-history";
import type { LockstepEvent, StepCompleted } from "#lib/core/events";

type Options = Partial<Omit<CoordinatorOptions, "job">> & {
  readonly job?: Pick<CoordinatorOptions["job"], "objective">;
};

/** A history of a run of 10 steps, 4 an epoch, and what it publishes. */
function historyOf(options: Options): { history: RunHistory; events: LockstepEvent[] } {
  const events: LockstepEvent[] = [];
  const bus = {
    publish: (event: LockstepEvent): void => {
      events.push(event);
    },
    subscribe: () => () => {},
  };
  const plan = { totalSteps: 10, epochAt: (step: number) => step / 4 };
  // Only these parts of the options are read.
  const job = { objective: { kind: "causal_lm" } };
  const all = { bus, plan, job, ...options } as unknown as CoordinatorOptions;
  return { history: new RunHistory(all), events };
}

const step = (number: number, loss: number): StepCompleted => ({
  type: "step.completed",
  step: number,
  totalSteps: 10,
  epoch: number / 4,
  loss,
  learningRate: 0.5,
  gradientNorm: 2,
  numRows: 3,
  numTokens: 48,
  stepSeconds: 1,
  syncSeconds: 0.1,
  tokensPerSecond: 48,
});

const evaluation = (number: number, loss: number) => ({
  ...{ step: number, loss, weight: 30, seconds: 0.5, metrics: { perplexity: Math.exp(loss) } },
});

const evaluating = (greaterIsBetter: boolean): Options => ({
  evaluation: {
    batches: [],
    ...{ atStart: true, atEnd: true, everySteps: 2, numRows: 7 },
    best: { metric: "loss", greaterIsBetter },
  },
});

test("the best evaluation is strictly better, never the one before training, never not a number", () => {
  const { history } = historyOf(evaluating(false));
  const losses: readonly [number, number, boolean][] = [
    [0, 1, false],
    [2, 3, true],
    [4, 3, false],
    [6, Number.NaN, false],
    [8, 2.5, true],
    [10, 2.75, false],
  ];
  for (const [at, loss, isBest] of losses) {
    assert.equal(history.evaluated(evaluation(at, loss), true).isBest, isBest, `step ${at}`);
  }
  assert.deepEqual(history.state().best, { metric: 2.5, step: 8 });
  const entry = history.state().logHistory[1];
  assert.deepEqual(entry, {
    epoch: 0.5,
    eval_loss: 3,
    eval_runtime: 0.5,
    eval_samples_per_second: 14,
    eval_steps_per_second: 0,
    step: 2,
  });
  assert.equal(history.state().logHistory[3]?.["eval_loss"], null);
  const greater = historyOf(evaluating(true)).history;
  assert.deepEqual(
    [3, 2, 4].map((loss, index) => greater.evaluated(evaluation(index + 1, loss), true).isBest),
    [true, false, true],
  );
});

test("a classifier's evaluations have scores, and may be compared by them", () => {
  const options = evaluating(true).evaluation;
  assert.ok(options !== undefined);
  const { history } = historyOf({
    job: { objective: { kind: "single_label_classification", numLabels: 3 } },
    evaluation: { ...options, best: { metric: "macro_f1", greaterIsBetter: true } },
  });
  const scored = (number: number, macroF1: number) => ({
    ...evaluation(number, number),
    metrics: { accuracy: 0.75, macro_f1: macroF1 },
  });
  const isBest = [scored(2, 0.5), scored(4, 0.625), scored(6, 0.5), evaluation(8, 9)].map(
    (one) => history.evaluated(one, true).isBest,
  );
  assert.deepEqual(isBest, [true, true, false, false]);
  assert.deepEqual(history.state().best, { metric: 0.625, step: 4 });
  const [entry] = history.state().logHistory;
  assert.equal(entry?.["eval_accuracy"], 0.75);
  assert.equal(entry?.["eval_macro_f1"], 0.5);
});

test("a best that is asked for only now is found in the history of before", () => {
  const logHistory = [1, 3, 2.5, null, 2.75].map((loss, i) => ({
    ...{ step: 2 * i, epoch: i / 2, eval_loss: loss },
  }));
  const state = { step: 8, numUpdates: 8, epoch: 2, numInputTokens: 0, logHistory };
  const resume = { state, loadStates: () => Promise.resolve() };
  const { history } = historyOf({ ...evaluating(false), resume });
  assert.deepEqual(history.state().best, { metric: 2.5, step: 4 });
  assert.equal(history.evaluated(evaluation(10, 2.5), true).isBest, false);
  const { history: unasked } = historyOf({ resume });
  assert.equal(unasked.state().best, undefined);
});

test("a run whose last process was killed before it could close is closed by the next", () => {
  const account = { seconds: 8, numTokens: 96, numSteps: 4, lossSum: 10, unloggedLosses: [] };
  const logHistory = [{ step: 4, epoch: 1, loss: 2 }];
  const state = {
    ...{ step: 4, numUpdates: 4, epoch: 1, numInputTokens: 96, logHistory },
    account: { ...account, samples: [] },
  };
  const resume = { state, loadStates: () => Promise.resolve() };
  const plan = { totalSteps: 4, epochAt: () => 1, rowsIn: () => 3 };
  const options = { resume, plan, flosPerToken: 10 } as unknown as Options;
  const { history } = historyOf(options);
  history.finished(4);
  const closing = {
    ...{ epoch: 1, step: 4, total_flos: 960, train_loss: 2.5, train_runtime: 8 },
    ...{ train_samples_per_second: 1.5, train_steps_per_second: 0.5 },
  };
  assert.deepEqual(history.state().logHistory, [...logHistory, closing]);
  history.finished(4);
  assert.equal(history.state().logHistory.length, 2);
});

test("a resumed run goes on with the log, the tokens and the best of before", () => {
  const before = { step: 2, epoch: 0.5, loss: 9 };
  const state = {
    ...{ step: 2, numUpdates: 2, epoch: 0.5, numInputTokens: 96, logHistory: [before] },
    best: { metric: 1, step: 2 },
  };
  const { history, events } = historyOf({
    ...evaluating(false),
    ...{ loggingSteps: 2, countsTokens: true, flosPerToken: 10 },
    resume: { state, loadStates: () => Promise.resolve() },
  });
  assert.equal(history.evaluated(evaluation(4, 1.5), true).isBest, false);
  history.finished(2);
  assert.equal(history.state().logHistory.length, 2, "no step, no closing entry");
  history.stepStarted();
  history.stepCompleted(step(3, 4), 48);
  assert.equal(history.state().logHistory.length, 2);
  history.stepCompleted(step(4, 2), 48);
  history.finished(4);
  const [, , training, closing] = history.state().logHistory;
  assert.equal(training?.["loss"], 3);
  assert.equal(training?.["num_input_tokens_seen"], 96 + 2 * 48);
  assert.equal(closing?.["train_loss"], 3);
  assert.equal(closing?.["total_flos"], 10 * (96 + 2 * 48));
  assert.equal(closing?.step, 4);
  assert.deepEqual(history.state().best, { metric: 1, step: 2 });
  assert.equal(history.state().numInputTokens, 96 + 2 * 48);
  const logged = events.filter((event) => event.type === "history.logged");
  assert.deepEqual(
    logged.map(({ entry }) => entry),
    history.state().logHistory.slice(1),
  );
});
