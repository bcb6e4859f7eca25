import type * as tf from "@tensorflow/tfjs-core";

/** A tensor of a checkpoint: its Hugging Face name and shape. */
export interface WeightSpec {
  readonly name: string;
  readonly shape: readonly number[];
}

/** The weights of a model by name, as tfjs tensors of any backend. */
export type Weights = (name: string) => tf.Tensor;

/**
 * A causal language model in tfjs ops. It does not know whether it is traced.
 *
 * Shape legend of this folder: B batch, T tokens, D model width, V vocabulary, N query heads,
 * K key/value heads, H head width, F feed-forward width.
 */
export interface CausalLanguageModel {
  readonly modelType: string;
  readonly vocabSize: number;
  /** Positions that the model was made for. */
  readonly maxPositions: number;
  /** Every weight, in the order of the layers. */
  readonly weights: readonly WeightSpec[];
  /**
   * Hidden states after the final norm.
   *
   * @param tokens_BT int32
   * @returns float [B, T, D]
   */
  hiddenStates(weights: Weights, tokens_BT: tf.Tensor2D): tf.Tensor3D;
  /** The output projection, float [V, D]; with a tied head the embedding. */
  outputProjection(weights: Weights): tf.Tensor2D;
}
