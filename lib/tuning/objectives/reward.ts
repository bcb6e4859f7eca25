// Shape legend: B pairs, P = 2B sequences, the chosen ones first.
import * as tf from "@tensorflow/tfjs-core";
import { marginField } from "#lib/core/batch";
import { centerRewardsOf } from "#lib/objectives/reward";
import { labelLogits } from "./heads.js";
import type { TracedObjective } from "./objective.js";
import { figuresOf, isPair, logSigmoid, sequencesOf, sides } from "./pairs.js";

/** Minus the log-sigmoid of the difference of a pair's rewards, less its margin, as TRL has it. */
export const reward: TracedObjective = {
  kind: "reward",
  fits: (model) => model.task === "sequence-classification" && model.numLabels === 1,
  loss(model, weights, inputs, targets, job) {
    const rewards_P1 = tf.cast(
      labelLogits(model, weights, sequencesOf(inputs, targets)),
      "float32",
    );
    const [chosen_B, rejected_B] = sides(rewards_P1);
    const [b] = inputs.tokens.shape;
    const margin_B = tf.reshape(targets[marginField.name] as tf.Tensor2D, [b]);
    const difference_B = tf.sub(tf.sub(chosen_B, rejected_B), margin_B);
    const preference_B = tf.neg(logSigmoid(difference_B));
    const coefficient = centerRewardsOf(job);
    const losses_B =
      coefficient === 0
        ? preference_B
        : tf.add(
            preference_B,
            tf.mul(tf.square(tf.add(chosen_B, rejected_B)), tf.scalar(coefficient)),
          );
    return {
      lossSum: tf.sum(tf.mul(losses_B, isPair(targets))) as tf.Scalar,
      logits: () => tf.reshape(chosen_B, [b, 1]) as tf.Tensor2D,
      outputs: () => figuresOf(chosen_B, rejected_B),
    };
  },
};
