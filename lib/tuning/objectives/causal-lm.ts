// Shape legend: B rows, T tokens, M = B*T, D model width, V vocabulary.
import * as tf from "@tensorflow/tfjs-core";
import { nextTokenField } from "#lib/core/batch";
import { tokenWeightsField } from "#lib/core/loss-weights";
import { labelSmoothingOf } from "#lib/objectives/label-smoothing";
import { zLossWeightOf } from "#lib/objectives/z-loss";
import { capLogits, linearCrossEntropy } from "#lib/ops/index";
import { causalModel } from "./heads.js";
import type { TracedObjective } from "./objective.js";

/** Negative log-likelihood of the next token, over supervised positions. */
export const causalLm: TracedObjective = {
  kind: "causal_lm",
  fits: ({ task }) => task === "causal-lm",
  loss(model, weights, inputs, targets, job) {
    const causal = causalModel(model);
    const [b, t] = inputs.tokens.shape;
    const hidden_BTD = causal.hiddenStates(weights, inputs);
    const hidden_MD = tf.reshape(hidden_BTD, [b * t, hidden_BTD.shape[2]]) as tf.Tensor2D;
    const targets_M = tf.reshape(targets[nextTokenField.name] as tf.Tensor2D, [
      b * t,
    ]) as tf.Tensor1D;
    const counts = targets[tokenWeightsField.name];
    const projection_VD = causal.outputProjection(weights);
    return {
      lossSum: linearCrossEntropy(hidden_MD, projection_VD, targets_M, {
        softcap: causal.logitSoftcap,
        labelSmoothing: labelSmoothingOf(job),
        zLossWeight: zLossWeightOf(job),
        weights: counts && (tf.reshape(counts, [b * t]) as tf.Tensor1D),
      }),
      logits: () =>
        capLogits(
          tf.matMul(hidden_MD, projection_VD, false, true),
          causal.logitSoftcap,
        ) as tf.Tensor2D,
    };
  },
};
