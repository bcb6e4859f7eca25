import assert from "node:assert/strict";
import { test } from "node:test";
import type { ResolvedConfig } from "#lib/config/index";
import { changedClasses, changedProblem, labelledObjective } from "#run/objective";

const learnt = (asked: string, problemType: string | undefined, first: unknown): string =>
  labelledObjective({ objective: asked } as ResolvedConfig, problemType, first).kind;

const [single, multi] = ["single_label_classification", "multi_label_classification"];

test("what is learnt is what was asked for, else what the model learnt, else what reads the label", () => {
  assert.equal(learnt("auto", undefined, "a"), single);
  assert.equal(learnt("auto", undefined, ["a"]), multi);
  assert.equal(learnt("auto", multi, "a"), multi);
  assert.equal(learnt(single, multi, ["a"]), single);
  assert.deepEqual(changedProblem(multi, single), [
    `the model's problem_type is ${multi}, and becomes ${single} (objective)`,
  ]);
  assert.deepEqual(changedProblem(single, single), []);
  assert.deepEqual(changedProblem(undefined, single), []);
});

test("a model that learnt what no run learns becomes another classifier only where that is asked for", () => {
  const refused =
    /^E_CONFIG_CONFLICT: .*model_name_or_path and objective .*problem_type is regression/;
  assert.throws(
    () => learnt("auto", "regression", "a"),
    (error: Error & { code: string }) => refused.test(`${error.code}: ${error.message}`),
  );
  assert.equal(learnt(multi, "regression", ["a"]), multi);
  assert.throws(() => learnt("causal_lm", "regression", "a"), /causal_lm reads no label/);
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
