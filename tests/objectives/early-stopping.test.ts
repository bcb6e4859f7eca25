import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { packageRoot } from "#lib/core/paths";
import { readEarlyStoppingState } from "#lib/objectives/early-stopping";
import {
  EvaluationWatch,
  type WatchRules,
  type WatchState,
} from "#lib/objectives/evaluation-watch";
import { readLossGapState } from "#lib/objectives/loss-gap";

// tests/reference/make_early_stopping_fixture.py wrote what transformers' callback does with the same values.

interface Case {
  readonly name: string;
  readonly values: readonly (number | string)[];
  readonly patience: number;
  readonly threshold: number;
  readonly greaterIsBetter: boolean;
  readonly rows: readonly {
    readonly counter: number;
    readonly stops: boolean;
    readonly isBest: boolean;
    readonly bestStep: number | null;
  }[];
}

const valueOf = (value: number | string): number =>
  typeof value === "number" ? value : ({ inf: Infinity, nan: Number.NaN }[value] ?? -Infinity);

/** What a checkpoint gives back. */
function throughJson({ best, ...state }: WatchState): WatchState {
  const read = JSON.parse(JSON.stringify(state)) as Record<string, unknown>;
  const earlyStopping = readEarlyStoppingState(read["earlyStopping"]);
  const lossGap = readLossGapState(read["lossGap"]);
  assert.ok(earlyStopping !== undefined && lossGap !== undefined, JSON.stringify(read));
  return { ...(best === undefined ? {} : { best }), earlyStopping, lossGap };
}

test("counter, best and stop are those of transformers' EarlyStoppingCallback, resumed anywhere or not", async () => {
  const file = join(packageRoot, "tests/fixtures/early_stopping.json");
  const { cases } = JSON.parse(await readFile(file, "utf8")) as { readonly cases: readonly Case[] };
  assert.ok(cases.length > 150);
  assert.ok(cases.some(({ rows }) => rows.some(({ stops }) => stops)));
  for (const { name, values, patience, threshold, greaterIsBetter, rows } of cases) {
    const rules: WatchRules = {
      best: { metric: "loss", greaterIsBetter },
      earlyStopping: { patience, threshold },
    };
    for (const isResumed of [false, true]) {
      let watch = new EvaluationWatch(rules);
      rows.forEach((row, index) => {
        const what = `${name}, patience ${patience}, threshold ${threshold}, ${greaterIsBetter}, evaluation ${index + 1}`;
        const step = 2 * (index + 1);
        watch.stepCompleted(1);
        const loss = valueOf(values[index] as number | string);
        const { isBest } = watch.evaluated({ step, loss, metrics: {} }, true);
        if (isResumed) watch = new EvaluationWatch(rules, throughJson(watch.state));
        const { best, earlyStopping } = watch.state;
        assert.deepEqual(
          { counter: earlyStopping?.counter, isBest, bestStep: best?.step ?? null },
          { counter: row.counter, isBest: row.isBest, bestStep: row.bestStep },
          what,
        );
        assert.equal(watch.stop !== undefined, row.stops, what);
      });
    }
  }
});

test("a score is what is compared where the rule names one; the evaluation before training and others that are not due count nowhere", () => {
  const watch = new EvaluationWatch({
    best: { metric: "accuracy", greaterIsBetter: true },
    earlyStopping: { patience: 1, threshold: 0 },
  });
  const evaluated = (step: number, accuracy: number, isDue = true) =>
    watch.evaluated({ step, loss: step, metrics: { accuracy } }, isDue).isBest;
  assert.equal(evaluated(0, 1), false);
  assert.equal(evaluated(2, 0.5), true);
  assert.equal(evaluated(3, 0.25, false), false);
  assert.equal(watch.stop, undefined);
  assert.equal(evaluated(4, 0.25), false);
  assert.match(
    watch.stop ?? "",
    /^the last evaluation was not .* the best eval_accuracy is 0.5, of step 2$/,
  );
});

test("steps without a row of a task have no part in the gap", () => {
  const watch = new EvaluationWatch({});
  const whole = [
    { name: "a", weight: 1, loss: 4 },
    { name: "b", weight: 1, loss: 2 },
  ];
  const part = [
    { name: "a", weight: 1, loss: 5 },
    { name: "b", weight: 1 },
  ];
  watch.stepCompleted(6, whole);
  assert.deepEqual(watch.evaluated({ step: 1, loss: 6, metrics: {} }, true).gap, { trainLoss: 6 });
  // The loss of a grew, and is less than that of both: nothing is told.
  watch.stepCompleted(5, part);
  assert.equal(watch.evaluated({ step: 2, loss: 7, metrics: {} }, true).gap, undefined);
  watch.stepCompleted(5, part);
  watch.stepCompleted(7, whole);
  assert.deepEqual(watch.evaluated({ step: 4, loss: 7, metrics: {} }, true).gap, { trainLoss: 7 });
});

test("losses that are not finite are compared with nothing, and others are before and after them", () => {
  const watch = new EvaluationWatch({});
  const evaluated = (step: number, trainLoss: number, loss: number) => {
    watch.stepCompleted(trainLoss);
    return watch.evaluated({ step, loss, metrics: {} }, true).gap;
  };
  assert.deepEqual(evaluated(1, 3, 2), { trainLoss: 3 });
  assert.equal(evaluated(2, Number.NaN, 2.5), undefined);
  assert.deepEqual(evaluated(3, 2, Number.NaN), { trainLoss: 2 });
  // Above the best, but training is not below what it was then.
  assert.deepEqual(evaluated(4, 3, 2.5), { trainLoss: 3 });
  // As good as the best.
  assert.deepEqual(evaluated(5, 1, 2), { trainLoss: 1 });
  assert.match(evaluated(6, 1, 2.001)?.warning ?? "", /since step 1: .*2.0000 to 2.0010/);
  assert.deepEqual(evaluated(7, 1, 3), { trainLoss: 1 });
});

test("the training loss that a gap is of has no replayed rows with a mean of their own", () => {
  const watch = new EvaluationWatch({});
  const a = { name: "a", weight: 1, loss: 3 };
  watch.stepCompleted(7, [a, { name: "general", weight: 0.5, loss: 8 }]);
  watch.stepCompleted(3, [a, { name: "general", weight: 0.5 }]);
  watch.stepCompleted(1, [
    { name: "a", weight: 1 },
    { name: "general", weight: 0.5, loss: 2 },
  ]);
  assert.equal(watch.evaluated({ step: 3, loss: 4, metrics: {} }, true).gap?.trainLoss, 3);
});
