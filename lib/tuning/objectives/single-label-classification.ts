// Shape legend: B rows, L labels.
import * as tf from "@tensorflow/tfjs-core";
import { classWeightsOf } from "#lib/objectives/class-weights";
import { labelSmoothingOf } from "#lib/objectives/label-smoothing";
import { zLossWeightOf } from "#lib/objectives/z-loss";
import { singleLabelLoss } from "#lib/ops/index";
import { isOfProblem, labelLogits } from "./heads.js";
import type { TracedObjective } from "./objective.js";

const kind = "single_label_classification";

/** Negative log-likelihood of each row's class. */
export const singleLabelClassification: TracedObjective = {
  kind,
  fits: (model) =>
    model.task === "sequence-classification" && isOfProblem(model, kind) && model.numLabels > 1,
  loss(model, weights, inputs, { label, weights: rowWeights_B1 }, job) {
    const logits_BL = labelLogits(model, weights, inputs);
    const targets_B = tf.reshape(label as tf.Tensor2D, [logits_BL.shape[0]]) as tf.Tensor1D;
    return {
      lossSum: singleLabelLoss(logits_BL, targets_B, {
        classWeights: classWeightsOf(job),
        labelSmoothing: labelSmoothingOf(job),
        zLossWeight: zLossWeightOf(job),
        rowWeights_B1,
      }),
      logits: () => logits_BL,
      outputs: () => tf.argMax(logits_BL, 1),
    };
  },
};
