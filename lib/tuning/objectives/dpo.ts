// Shape legend: B pairs, P = 2B sequences, the chosen ones first, T tokens.
import * as tf from "@tensorflow/tfjs-core";
import { LockstepError } from "#lib/core/errors/index";
import { dpoSettings } from "#lib/objectives/dpo";
import type { TracedObjective } from "./objective.js";
import {
  answerTargets,
  figuresOf,
  isPair,
  isTarget,
  logSigmoid,
  sequencesOf,
  sides,
  targetLosses,
} from "./pairs.js";

/** A loss of how much likelier each pair's chosen answer has become than the rejected one, as TRL has it. */
export const dpo: TracedObjective = {
  kind: "dpo",
  fits: ({ task }) => task === "causal-lm",
  loss(model, weights, inputs, targets, job, reference) {
    if (reference === undefined) {
      throw new LockstepError("E_MODEL_UNSUPPORTED", { what: "DPO without a reference model" });
    }
    const settings = dpoSettings(job);
    const beta = tf.scalar(settings.beta);
    const sequences = sequencesOf(inputs, targets);
    const targets_PT = answerTargets(targets);
    const { losses_PT, logits, figures } = targetLosses(model, weights, sequences, targets_PT);
    const { losses_PT: before_PT } = targetLosses(
      reference.model,
      reference.weights,
      { tokens: sequences.tokens },
      targets_PT,
    );
    const logps_P = tf.neg(tf.sum(losses_PT, 1));
    const ratios_P = tf.sub(logps_P, tf.neg(tf.sum(before_PT, 1)));
    const numTargets_P = tf.sum(isTarget(targets_PT), 1);
    const lengths_P = tf.maximum(numTargets_P, tf.scalar(1));
    const losses_B = pairLosses(settings, { ratios_P, lengths_P });
    return {
      lossSum: tf.sum(tf.mul(losses_B, isPair(targets))) as tf.Scalar,
      logits,
      outputs: () => {
        const rewards_P = tf.mul(ratios_P, beta);
        const [logits_P, entropies_P, right_P] = figures();
        return figuresOf(
          ...[...sides(rewards_P), ...sides(logps_P), ...sides(logits_P)],
          ...[tf.add(...sides(entropies_P)), sides(right_P)[0], ...sides(numTargets_P)],
        );
      },
    };
  },
};

/**
 * @param of.ratios_P log of how many times likelier an answer is than it was to the reference
 * @param of.lengths_P tokens of an answer
 */
function pairLosses(
  { beta, lossType, labelSmoothing }: ReturnType<typeof dpoSettings>,
  { ratios_P, lengths_P }: { readonly ratios_P: tf.Tensor; readonly lengths_P: tf.Tensor },
): tf.Tensor {
  const difference = (values_P: tf.Tensor): tf.Tensor => tf.sub(...sides(values_P));
  const margin_B = tf.mul(difference(ratios_P), tf.scalar(beta));
  const right = (): tf.Tensor => tf.mul(logSigmoid(margin_B), tf.scalar(labelSmoothing - 1));
  const swapped = (): tf.Tensor => tf.mul(logSigmoid(tf.neg(margin_B)), tf.scalar(-labelSmoothing));
  switch (lossType) {
    case "sigmoid":
      return labelSmoothing === 0 ? tf.neg(logSigmoid(margin_B)) : tf.add(right(), swapped());
    case "robust":
      return tf.div(tf.sub(right(), swapped()), tf.scalar(1 - 2 * labelSmoothing));
    case "hinge":
      return tf.relu(tf.sub(tf.scalar(1), margin_B));
    case "ipo": {
      // Of means over tokens, so that long answers weigh no more.
      const mean_B = difference(tf.div(ratios_P, lengths_P));
      return tf.square(tf.sub(mean_B, tf.scalar(1 / (2 * beta))));
    }
  }
}
