// Shape legend: B rows, L labels.
import type * as tf from "@tensorflow/tfjs-core";
import { LockstepError } from "#lib/core/errors/index";
import type {
  CausalLanguageModel,
  ModelInputs,
  SequenceClassifier,
  Weights,
} from "#lib/models/index";
import type { HeadedModel } from "./objective.js";

/** @throws E_MODEL_UNSUPPORTED */
export function causalModel(model: HeadedModel): CausalLanguageModel {
  if (model.task === "causal-lm") return model;
  throw new LockstepError("E_MODEL_UNSUPPORTED", { what: "The next token of a classifier" });
}

/** @throws E_MODEL_UNSUPPORTED */
function classifier(model: HeadedModel): SequenceClassifier {
  if (model.task === "sequence-classification") return model;
  throw new LockstepError("E_MODEL_UNSUPPORTED", { what: "The classes of a causal model" });
}

/** The scores of a classifier's labels, float [B, L]. @throws E_MODEL_UNSUPPORTED */
export function labelLogits(
  model: HeadedModel,
  weights: Weights,
  inputs: ModelInputs,
): tf.Tensor2D {
  const headed = classifier(model);
  return headed.logits(weights, inputs, headed.hiddenStates(weights, inputs));
}

/**
 * Whether a classifier's checkpoint is of a problem. One that names none is, as in transformers, a regression
 * where it has one output, else of classes that exclude each other.
 */
export const isOfProblem = (model: HeadedModel, kind: string): boolean =>
  model.task === "sequence-classification" &&
  (model.problemType ?? (model.numLabels === 1 ? "regression" : "single_label_classification")) ===
    kind;
