import type * as tf from "@tensorflow/tfjs-core";
import type { ObjectiveJob } from "#lib/core/job";
import type {
  CausalLanguageModel,
  ModelInputs,
  SequenceClassifier,
  Weights,
} from "#lib/models/index";

/** A model with a head. */
export type HeadedModel = CausalLanguageModel | SequenceClassifier;

/** The loss of an objective of lib/objectives, as the graph computes it. */
export interface TracedObjective {
  readonly kind: string;
  /** Whether the model's head gives what the loss is of. */
  fits(model: HeadedModel): boolean;
  /**
   * @param targets by the names of the objective's fields, [B, values of a row]
   * @param job of this objective, with its settings
   * @param reference the model that the run starts from, of an objective that `hasReference`
   * @throws E_MODEL_UNSUPPORTED for a model that does not fit
   */
  loss(
    model: HeadedModel,
    weights: Weights,
    inputs: ModelInputs,
    targets: Readonly<Record<string, tf.Tensor2D>>,
    job: ObjectiveJob,
    reference?: ReferenceModel,
  ): TracedLoss;
}

/** A model whose weights no step changes, and which drops nothing. */
export interface ReferenceModel {
  readonly model: HeadedModel;
  readonly weights: Weights;
}

/** What is not the loss is traced only where it is asked for. */
export interface TracedLoss {
  /** The sum that the batch's weight divides. */
  readonly lossSum: tf.Scalar;
  /** What the loss is of: float [M, V] of tokens, [B, L] of rows. */
  logits(): tf.Tensor2D;
  /** What an evaluation returns of each row, [B, values of a row], where the objective makes metrics of it. */
  outputs?(): tf.Tensor;
}
