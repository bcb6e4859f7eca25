import assert from "node:assert/strict";
import { test } from "node:test";
import { defaultOf, objectiveKeys, type ResolvedConfig } from "#lib/config/index";
import { objectiveOf } from "#lib/objectives/index";
import { failure } from "#tests/support/failure";
import {
  bestMetric,
  changedClasses,
  changedProblem,
  checkObjectiveKeys,
  labelledObjective,
  pairObjective,
  textObjective,
} from "#run/objective";

const learnt = (asked: string, problemType: string | undefined, first: unknown): string =>
  labelledObjective({ objective: asked } as ResolvedConfig, problemType, first).kind;

const single = "single_label_classification";
const multi = "multi_label_classification";
const regression = "regression";

test("what is learnt is what was asked for, else what the model learnt, else what suits the label", () => {
  assert.equal(learnt("auto", undefined, "a"), single);
  assert.equal(learnt("auto", undefined, ["a"]), multi);
  assert.equal(learnt("auto", multi, "a"), multi);
  for (const value of [0.5, "0.5"]) assert.equal(learnt("auto", undefined, value), regression);
  for (const value of [3, "3", "3.0", true, null]) {
    assert.equal(learnt("auto", undefined, value), single, String(value));
  }
  assert.equal(learnt("auto", undefined, [0.5, 1]), multi);
  assert.equal(learnt("auto", regression, 3), regression);
  assert.equal(learnt(regression, single, 3), regression);
  assert.equal(learnt(single, multi, ["a"]), single);
  assert.deepEqual(changedProblem(multi, single), [
    `the model's problem_type is ${multi}, and becomes ${single} (objective)`,
  ]);
  assert.deepEqual(changedProblem(single, single), []);
  assert.deepEqual(changedProblem(undefined, single), []);
});

test("a model that learnt what no run learns becomes another classifier only where that is asked for", () => {
  const refused =
    /^E_CONFIG_CONFLICT: .*model_name_or_path and objective .*problem_type is token_scores/;
  assert.throws(
    () => learnt("auto", "token_scores", "a"),
    (error: Error & { code: string }) => refused.test(`${error.code}: ${error.message}`),
  );
  assert.equal(learnt(multi, "token_scores", ["a"]), multi);
  assert.throws(() => learnt("causal_lm", regression, "a"), /causal_lm reads no label/);
});

test("a key that has no meaning for the loss of what is learnt is refused by both names", () => {
  const check = (kind: string, more: Partial<ResolvedConfig>): void => {
    const defaults = Object.fromEntries(objectiveKeys.map((key) => [key, defaultOf(key)]));
    checkObjectiveKeys({ ...defaults, ...more } as ResolvedConfig, objectiveOf(kind));
  };
  const weights = { class_weights: "balanced" } as const;
  const smoothing = { label_smoothing_factor: 0.1 };
  check("causal_lm", smoothing);
  check(single, { ...weights, ...smoothing });
  check(multi, weights);
  check(regression, {});
  for (const [kind, more, key] of [
    ["causal_lm", weights, "class_weights"],
    [multi, smoothing, "label_smoothing_factor"],
    [regression, weights, "class_weights"],
    [regression, smoothing, "label_smoothing_factor"],
    ["causal_lm", { beta: 0.2 }, "beta"],
    ["orpo", { loss_type: "ipo" }, "loss_type"],
    ["reward", { beta: 0.2 }, "beta"],
  ] as const) {
    assert.throws(
      () => check(kind, more),
      (error: Error & { code: string }) =>
        error.code === "E_CONFIG_CONFLICT" &&
        error.message.includes(`${key} and objective`) &&
        error.message.includes(kind),
    );
  }
});

test("a head that goes on under other names is told of", () => {
  const line = "the model's classes a, b are, in this order, x, y from here on";
  assert.deepEqual(changedClasses(["a", "b"], ["x", "y"]), [line]);
  for (const [before, now] of [
    [
      ["a", "b"],
      ["a", "b"],
    ],
    [
      ["LABEL_0", "LABEL_1"],
      ["x", "y"],
    ],
    // A head of other classes is refused by its shape.
    [
      ["a", "b"],
      ["x", "y", "z"],
    ],
    [[], ["x", "y"]],
  ] as const) {
    assert.deepEqual(changedClasses(before, now), []);
  }
});

test("pairs of answers are compared, by DPO where nothing else is asked for", () => {
  const ofPairs = (objective: string): string =>
    pairObjective({ objective } as ResolvedConfig).kind;
  assert.equal(ofPairs("auto"), "dpo");
  for (const kind of ["dpo", "orpo", "reward"]) assert.equal(ofPairs(kind), kind);
  assert.throws(
    () => ofPairs("causal_lm"),
    /rows have a chosen and a rejected answer, which dpo or orpo or reward compares, and causal_lm does not/,
  );
  assert.throws(
    () => textObjective({ objective: "dpo" } as ResolvedConfig),
    /dpo compares a chosen and a rejected answer of a row, and the data set has none/,
  );
  assert.throws(
    () => learnt("orpo", undefined, "a"),
    /orpo compares .*, and the rows have a label/,
  );
});

test("a loss is of the objective that has it", () => {
  const settingsOf = (kind: string, more: Partial<ResolvedConfig>) => {
    const defaults = Object.fromEntries(objectiveKeys.map((key) => [key, defaultOf(key)]));
    const labels = { names: [], numRows: 0, targetsOf: () => ({}), placeOf: () => "" };
    return objectiveOf(kind).settings?.({ ...defaults, ...more }, labels);
  };
  assert.deepEqual(settingsOf("causal_lm", { loss_type: "nll" }), {});
  assert.deepEqual(settingsOf("dpo", { loss_type: "ipo", beta: 0.5 }), {
    ...{ beta: 0.5, lossType: "ipo" },
  });
  assert.throws(
    () => settingsOf("causal_lm", { loss_type: "ipo" }),
    /ipo is a loss of objective: dpo/,
  );
  assert.throws(
    () => settingsOf("dpo", { loss_type: "nll" }),
    /nll is the loss of objective: causal_lm/,
  );
  const swapped = { loss_type: "ipo", label_smoothing: 0.1 } as const;
  assert.throws(() => settingsOf("dpo", swapped), /label_smoothing and loss_type/);
});

test("a metric that an objective does not have is refused with those that it has", () => {
  const refusal = (kind: string, name: string): string =>
    failure(() =>
      bestMetric({ metric_for_best_model: name } as ResolvedConfig, { objective: { kind } }),
    );
  assert.match(refusal("dpo", "accuracy"), /accuracy is no metric of dpo: loss, rewards\/chosen, /);
  assert.match(
    refusal("causal_lm", "margin"),
    /margin is no metric of causal_lm: loss, perplexity/,
  );
});
