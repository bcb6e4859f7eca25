// Shape legend: B rows, T tokens, M = B*T, D model width, V vocabulary, L labels.
import * as tf from "@tensorflow/tfjs-core";
import { ignoredTarget } from "#lib/core/job";
import type {
  CausalLanguageModel,
  ModelInputs,
  SequenceClassifier,
  Weights,
} from "#lib/models/index";
import {
  capLogits,
  linearCrossEntropy,
  multiLabelLoss,
  singleLabelLoss,
  squaredErrorLoss,
} from "#lib/ops/index";

/** Labels as transformers takes them. */
export interface Labels {
  readonly numRows: number;
  /** Tokens of a row. */
  readonly rowLength: number;
  /** Token ids [B, T] that are not shifted, class ids [B], or numbers [B] or [B, L]; below 0: ignored. */
  readonly labels: readonly number[];
  readonly labelsPerRow: number;
}

export interface ModelOutputs {
  /** Mean over supervised tokens, rows or outputs. */
  readonly loss: tf.Scalar;
  /** float [M, V] or [B, L] */
  readonly logits: tf.Tensor;
}

/** Loss and logits of one batch, with the loss that transformers computes for the model's head. */
export function modelOutputs(
  model: CausalLanguageModel | SequenceClassifier,
  weights: Weights,
  inputs: ModelInputs,
  labels: Labels,
): ModelOutputs {
  return model.task === "causal-lm"
    ? causalOutputs(model, weights, inputs, labels)
    : classifierOutputs(model, weights, inputs, labels);
}

/** Labels are those of the tokens themselves: position i predicts i + 1. */
function causalOutputs(
  model: CausalLanguageModel,
  weights: Weights,
  inputs: ModelInputs,
  { numRows: b, rowLength: t, labels }: Labels,
): ModelOutputs {
  const targets = Int32Array.from(labels, (_, index) =>
    (index + 1) % t === 0 ? ignoredTarget : (labels[index + 1] as number),
  );
  const numTargets = targets.filter((target) => target >= 0).length;
  const hidden_BTD = model.hiddenStates(weights, inputs);
  const hidden_MD = tf.reshape(hidden_BTD, [b * t, hidden_BTD.shape[2]]) as tf.Tensor2D;
  const projection_VD = model.outputProjection(weights);
  const nllSum = linearCrossEntropy(
    hidden_MD,
    projection_VD,
    tf.tensor1d(targets, "int32"),
    model.logitSoftcap,
  );
  const logits_MV = capLogits(tf.matMul(hidden_MD, projection_VD, false, true), model.logitSoftcap);
  return { loss: tf.div(nllSum, tf.scalar(numTargets)) as tf.Scalar, logits: logits_MV };
}

function classifierOutputs(
  model: SequenceClassifier,
  weights: Weights,
  inputs: ModelInputs,
  { numRows: b, labels, labelsPerRow }: Labels,
): ModelOutputs {
  const logits_BL = model.logits(weights, inputs, model.hiddenStates(weights, inputs));
  const problem = model.problemType ?? guessProblem(model.numLabels, labelsPerRow);
  if (problem === "single_label_classification") {
    const numRows = labels.filter((label) => label >= 0).length;
    const sum = singleLabelLoss(logits_BL, tf.tensor1d([...labels], "int32"));
    return { loss: tf.div(sum, tf.scalar(numRows)) as tf.Scalar, logits: logits_BL };
  }
  const targets_BL = tf.tensor2d([...labels], [b, labelsPerRow]);
  const lossSum = problem === "regression" ? squaredErrorLoss : multiLabelLoss;
  const loss = tf.div(lossSum(logits_BL, targets_BL), tf.scalar(labels.length)) as tf.Scalar;
  return { loss, logits: logits_BL };
}

/** What transformers decides where the configuration names no problem_type. */
function guessProblem(numLabels: number, labelsPerRow: number) {
  if (numLabels === 1) return "regression";
  return labelsPerRow === 1 ? "single_label_classification" : "multi_label_classification";
}
