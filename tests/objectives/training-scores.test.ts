import assert from "node:assert/strict";
import { test } from "node:test";
import { type Batch, ignoredTarget, pairLengthsField } from "#lib/core/batch";
import type { TaskedJob } from "#lib/core/job";
import { trainingScores } from "#lib/objectives/training-scores";
import { isLockstepError } from "#lib/core/errors/index";

/** Pairs, and rows of padding where nothing is there. */
const batch = (isPair: readonly boolean[], task = 0): Batch => ({
  numRows: isPair.length,
  fields: {
    [pairLengthsField.name]: Int32Array.from(
      isPair.flatMap((is) => (is ? [3, 4] : [ignoredTarget, ignoredTarget])),
    ),
  },
  ...(task === 0 ? {} : { task }),
});
const job = (objective: TaskedJob["objective"]): TaskedJob => ({
  ...{ objective, batchFields: [], sequenceLength: 8 },
});
const dpo = job({ kind: "dpo" });

test("a step's figures are means over its pairs, or their tokens, and padding is none", () => {
  const outputs = [
    ...[1, -1, -10, -20, 6, 3, 20, 1, 2, 3],
    ...[0.5, 0.75, -30, -40, 4, 5, 10, 3, 6, 1],
    // What is said of padding.
    ...[9, 9, 9, 9, 9, 9, 9, 9, 9, 9],
  ];
  const scored = [
    { batch: batch([true, true, false]), outputs: Float32Array.from(outputs) },
    { batch: batch([true]), outputs: Float32Array.of(0, 0, -5, -6, 0, 1, 3, 2, 2, 4) },
  ];
  assert.deepEqual(trainingScores(dpo, scored), {
    "rewards/chosen": 0.5,
    "rewards/rejected": -0.25 / 3,
    // Equal rewards are not right.
    "rewards/accuracies": 1 / 3,
    "rewards/margins": 1.75 / 3,
    "logps/chosen": -15,
    "logps/rejected": -22,
    // Over tokens, not over pairs.
    "logits/chosen": 1,
    "logits/rejected": 9 / 8,
    mean_token_accuracy: 0.6,
    entropy: 33 / 18,
  });
});

test("a reward model's figures are of both answers, its extremes too", () => {
  const scored = [
    { batch: batch([true, true]), outputs: Float32Array.of(2, -1, 0.5, 1) },
    { batch: batch([true, false]), outputs: Float32Array.of(4, 3, 90, -90) },
  ];
  assert.deepEqual(trainingScores(job({ kind: "reward", numLabels: 1 }), scored), {
    accuracy: 2 / 3,
    margin: 3.5 / 3,
    min_reward: -1,
    mean_reward: 9.5 / 6,
    max_reward: 4,
  });
});

test("what nobody computed of such rows is refused, and other objectives tell nothing", () => {
  const refused = (outputs: Float32Array | Int32Array | undefined): boolean => {
    try {
      trainingScores(dpo, [
        { batch: batch([true]), ...(outputs === undefined ? {} : { outputs }) },
      ]);
    } catch (error) {
      return isLockstepError(error) && error.code === "E_MESSAGE_INVALID";
    }
    return false;
  };
  assert.ok(refused(undefined));
  assert.ok(refused(Float32Array.of(1, 2, 3)));
  const numbers = Array.from({ length: 10 }, (_, i) => i);
  assert.ok(refused(Int32Array.from(numbers)));
  assert.ok(!refused(Float32Array.from(numbers)));
  assert.equal(trainingScores(job({ kind: "causal_lm" }), [{ batch: batch([true]) }]), undefined);
});
