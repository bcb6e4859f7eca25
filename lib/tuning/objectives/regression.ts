import * as tf from "@tensorflow/tfjs-core";
import { squaredErrorLoss } from "#lib/ops/index";
import { isOfProblem, labelLogits } from "./heads.js";
import type { TracedObjective } from "./objective.js";

const kind = "regression";

/** Squared error of each row's numbers. */
export const regression: TracedObjective = {
  kind,
  fits: (model) => isOfProblem(model, kind),
  loss(model, weights, inputs, { numbers, counted, weights: rowWeights_B1 }) {
    const logits_BL = labelLogits(model, weights, inputs);
    return {
      lossSum: squaredErrorLoss(
        logits_BL,
        numbers as tf.Tensor2D,
        counted as tf.Tensor2D,
        rowWeights_B1,
      ),
      logits: () => logits_BL,
      outputs: () => tf.cast(logits_BL, "float32"),
    };
  },
};
