import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { CoordinatorOptions, CheckpointState } from "#coordinator/options";
import { CoordinatorMetrics } from "#coordinator/metrics";
import { resumedEvent } from "#coordinator/resumed-event";
import { readAccount } from "#coordinator/run-account";
import { RunHistory } from "#coordinator/run-history";
import type { StepCompleted } from "#lib/core/events";
import { InProcessEventBus } from "#lib/wire/event-bus";

const account = {
  ...{ seconds: 12.5, numTokens: 96, numSteps: 2, lossSum: 7 },
  unloggedLosses: [3.5, Number.NaN],
  samples: [{ step: 0, tokens: [1, 2], prompt: "the state", text: " of", isChat: true }],
};

test("an account is read back as it was written, losses that are not finite too", () => {
  assert.deepEqual(readAccount(JSON.parse(JSON.stringify(account))), account);
});

test("what is no account is none, and never an error", () => {
  for (const change of [
    { seconds: -1 },
    { seconds: "12" },
    { numTokens: 1.5 },
    { numSteps: -1 },
    { lossSum: "7" },
    { unloggedLosses: ["3"] },
    { unloggedLosses: {} },
    { samples: [{ step: 0, tokens: [1], text: "no prompt" }] },
    { samples: [{ ...account.samples[0], tokens: ["1"] }] },
    { samples: null },
  ]) {
    assert.equal(readAccount({ ...account, ...change }), undefined, JSON.stringify(change));
  }
  fc.assert(fc.property(fc.jsonValue(), (value) => readAccount(value) === undefined));
});

const totalSteps = 12;

const step = (number: number): StepCompleted => ({
  type: "step.completed",
  ...{ step: number, totalSteps, epoch: number / totalSteps, loss: 1 / number },
  ...{ learningRate: 0.5, gradientNorm: 2, numRows: 3, numTokens: 48 },
  ...{ stepSeconds: 1, syncSeconds: 0.1, tokensPerSecond: 48 },
});

function historyOf(state: CheckpointState | undefined, loggingSteps: number): RunHistory {
  const bus = { publish: () => {}, subscribe: () => () => {} };
  const plan = { totalSteps, epochAt: (at: number) => at / totalSteps };
  const resume = state === undefined ? {} : { resume: { state, loadMoments: async () => {} } };
  const options = { bus, plan, loggingSteps, logsFirstStep: true, countsTokens: true, ...resume };
  // Only these parts of the options are read.
  return new RunHistory(options as unknown as CoordinatorOptions);
}

/** Entries without what clocks measured. */
const told = (history: RunHistory): unknown =>
  history
    .state()
    .logHistory.map((entry) =>
      Object.fromEntries(Object.entries(entry).filter(([name]) => !/runtime|per_sec/.test(name))),
    );

test("however often a run is interrupted, and wherever, its history is that of one that was not", () => {
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.integer({ min: 1, max: totalSteps - 1 }), { maxLength: 5 }),
      fc.integer({ min: 1, max: 7 }),
      (stops, loggingSteps) => {
        const calm = historyOf(undefined, loggingSteps);
        let hurt = historyOf(undefined, loggingSteps);
        for (let at = 1; at <= totalSteps; at++) {
          calm.stepCompleted(step(at), 48);
          hurt.stepCompleted(step(at), 48);
          if (!stops.includes(at)) continue;
          const saved = { step: at, numUpdates: at, epoch: at / totalSteps, ...hurt.state() };
          // A step after the checkpoint is lost with its process.
          hurt.stepCompleted(step(at + 1), 48);
          const state = JSON.parse(JSON.stringify(saved)) as CheckpointState;
          hurt = historyOf(state, loggingSteps);
        }
        for (const history of [calm, hurt]) history.finished(totalSteps);
        assert.deepEqual(told(hurt), told(calm));
        const [a, b] = [calm, hurt].map((history) => history.state().account);
        assert.equal(b?.numTokens, a?.numTokens);
        assert.equal(b?.numSteps, totalSteps);
      },
    ),
  );
});

const classes = { kind: "single_label_classification", numLabels: 3 };

test("what was before a checkpoint is told; of a long history the first and the last points stay", () => {
  const entry = (at: number) => ({ step: at, epoch: at, loss: at / 2, grad_norm: null });
  const logHistory = [
    { step: 0, epoch: 0, eval_loss: 3, eval_accuracy: 0.5, eval_macro_f1: 0.25 },
    ...Array.from({ length: 5_000 }, (_, index) => entry(index + 1)),
    { step: 5_000, epoch: 1, eval_loss: null },
  ];
  const state = { step: 5_000, numUpdates: 5_000, epoch: 1, numInputTokens: 77, logHistory };
  const event = resumedEvent("checkpoint-5000", state, { objective: classes });
  assert.ok(event.losses.length <= 1_025);
  assert.deepEqual(event.losses[0], { step: 1, loss: 0.5, gradientNorm: Number.NaN });
  assert.equal(event.losses.at(-1)?.step, 5_000);
  assert.deepEqual(event.evaluations, [
    { step: 0, loss: 3, metrics: { accuracy: 0.5, macro_f1: 0.25 } },
    { step: 5_000, loss: Number.NaN, metrics: {} },
  ]);
  const ofTokens = resumedEvent("checkpoint-5000", state, { objective: { kind: "causal_lm" } });
  assert.deepEqual(
    ofTokens.evaluations.map(({ metrics }) => metrics),
    [{ perplexity: Math.exp(3) }, { perplexity: Number.NaN }],
  );
  // A checkpoint of a version that kept no account.
  assert.equal(event.seconds, undefined);
  assert.equal(event.numTokens, 77);
  assert.deepEqual(event.samples, []);
  const kept = resumedEvent("checkpoint-5000", { ...state, account }, { objective: classes });
  assert.deepEqual([kept.seconds, kept.numTokens], [12.5, 96]);
  assert.deepEqual(kept.samples, [{ step: 0, prompt: "the state", text: " of", isChat: true }]);
});

test("metrics show the latest evaluation of before", async () => {
  const bus = new InProcessEventBus();
  const metrics = new CoordinatorMetrics(bus);
  const logHistory = [
    { step: 0, epoch: 0, eval_loss: 3 },
    { step: 2, epoch: 1, eval_loss: 2, eval_accuracy: 0.75, eval_macro_f1: 0.5 },
  ];
  const state = { step: 3, numUpdates: 3, epoch: 1, numInputTokens: 9, logHistory };
  bus.publish(resumedEvent("checkpoint-3", state, { objective: classes }));
  const text = await metrics.registry.metrics();
  assert.match(text, /^lockstep_evaluation_loss 2$/m);
  assert.match(text, /^lockstep_evaluation_score_ratio\{score="accuracy"\} 0\.75$/m);
});
