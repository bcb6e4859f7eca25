import * as tf from "@tensorflow/tfjs-core";
import { classWeightsOf } from "#lib/objectives/class-weights";
import { multiLabelLoss } from "#lib/ops/index";
import { isOfProblem, labelLogits } from "./heads.js";
import type { TracedObjective } from "./objective.js";

const kind = "multi_label_classification";

/** Binary cross-entropy of each class of each row. */
export const multiLabelClassification: TracedObjective = {
  kind,
  fits: (model) => isOfProblem(model, kind),
  loss(model, weights, inputs, { labels, weights: rowWeights_B1 }, job) {
    const logits_BL = labelLogits(model, weights, inputs);
    return {
      lossSum: multiLabelLoss(logits_BL, labels as tf.Tensor2D, {
        positiveWeights: classWeightsOf(job),
        rowWeights_B1,
      }),
      logits: () => logits_BL,
      outputs: () => tf.cast(tf.greater(logits_BL, tf.zeros([1, 1])), "int32"),
    };
  },
};
