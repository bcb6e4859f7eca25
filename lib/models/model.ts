import type * as tf from "@tensorflow/tfjs-core";
import type { DropoutKind } from "#lib/core/dropout";
import type { AttentionOptions, DropoutSource } from "#lib/ops/index";

/** A tensor of a checkpoint: its Hugging Face name and shape. */
export interface WeightSpec {
  readonly name: string;
  readonly shape: readonly number[];
  /** A projection stored [in, out], used in nothing but products x W; others are [out, in]. */
  readonly isInputMajor?: true;
}

/** The weights of a model by name, as tfjs tensors of any backend. */
export interface Weights {
  (name: string): tf.Tensor;
  /** The adapter of a linear module, by its path; undefined where it has none. */
  readonly adapterOf?: (module: string) => Adapter | undefined;
  /** What is computed where a part of a layer joins the residual stream; undefined: they are joined. */
  readonly sublayerOf?: (layer: number, part: LayerPart) => Sublayer | undefined;
  /** Finds the vectors of tokens some of which the model's table does not have. */
  readonly embedOf?: (tokens_M: tf.Tensor1D, lookUp: LookUp) => tf.Tensor;
}

/** The parts of a layer that add to its residual stream. */
export type LayerPart = "attention" | "feedForward";

/**
 * @param output float [M, D], what the part gives, as it would be added
 * @param join adds it to the stream, and applies the norm that follows where there is one
 * @returns float [M, D], the stream behind the part
 */
export type Sublayer = (output: tf.Tensor, join: (output: tf.Tensor) => tf.Tensor) => tf.Tensor;

/** The vectors of the model's own tokens, [M, D]. */
export type LookUp = (tokens_M: tf.Tensor1D) => tf.Tensor;

/** A low-rank addition to a linear map: y = W x + scale B A x (LoRA, Hu et al. 2021). */
export interface Adapter {
  /** float [r, inputs] */
  readonly a: tf.Tensor;
  /** float [outputs, r] */
  readonly b: tf.Tensor;
  readonly scale: number;
  /** float [outputs], the norms that the rows of W + scale B A are given (DoRA, Liu et al. 2024); absent: their own. */
  readonly magnitude?: tf.Tensor;
  /** Absent outside of training. */
  readonly dropout?: Dropout;
}

/** What one forward pass of training drops, and the noise that it adds. */
export interface Dropout {
  /** To be asked once for each place that drops values, in the order of the pass; undefined: nothing is dropped. */
  sourceOf(kind: DropoutKind): DropoutSource | undefined;
  /** The vectors of tokens [M, D] with the noise that they have in training; absent: none. */
  readonly withNoise?: (vectors_MD: tf.Tensor) => tf.Tensor;
}

/**
 * Attention of one layer, called with rotated q [B, T, N, H], k and v [B, T, K, H]; returns
 * [B, T, N, H]. Whoever keeps keys and values of earlier tokens puts its own in.
 */
export type LayerAttention = (
  layer: number,
  q_BTNH: tf.Tensor,
  k_BTKH: tf.Tensor,
  v_BTKH: tf.Tensor,
  options: AttentionOptions,
) => tf.Tensor;

/** What a forward pass reads; shapes are static. */
export interface ModelInputs {
  /** int32 [B, T] */
  readonly tokens: tf.Tensor2D;
  /**
   * int32 [B, T]: a token attends to tokens of its own segment only. Rows packed of several samples
   * number them; padding is a segment of its own. Absent: a row is one segment.
   */
  readonly segments?: tf.Tensor2D;
  /** int32 [B, T], from 0 in each sample; absent: 0 to T-1. */
  readonly positions?: tf.Tensor2D;
  /** int32 [B, T], for models with token types; absent: all 0. */
  readonly tokenTypes?: tf.Tensor2D;
  /**
   * Tokens of the whole sequence, for rotary types that depend on it (dynamic, longrope) where it is
   * not T; absent: T.
   */
  readonly sequenceLength?: number;
  /** Absent: attention over the T tokens and their segments. */
  readonly attention?: LayerAttention;
  /** Absent: every value is kept, as outside of training. */
  readonly dropout?: Dropout;
}

export type Task = "causal-lm" | "sequence-classification" | "feature-extraction";
export type ProblemType =
  | "single_label_classification"
  | "multi_label_classification"
  | "regression";

/**
 * A model in tfjs ops. It does not know whether it is traced.
 *
 * Shape legend of this folder: B batch, T tokens, M = B*T, D model width, V vocabulary, L labels,
 * N query heads, K key/value heads, H head width, R rotated width, F feed-forward width.
 */
export interface ModelBase {
  readonly modelType: string;
  readonly vocabSize: number;
  /** Positions that the model was made for. */
  readonly maxPositions: number;
  /** Every weight that the task uses, in the order of the layers. */
  readonly weights: readonly WeightSpec[];
  /** Prefix of the base model's weights, which some checkpoints leave out; "" where there is none. */
  readonly basePrefix: string;
  /**
   * Ids, behind those of the vocabulary, that stand before the tokens of every row. The model puts them there, but
   * where the caller has an attention of its own: then they are among its tokens. Absent: none.
   */
  readonly prefix?: Int32Array;
  /** Hidden states after the last norm, float [B, T, D]. */
  hiddenStates(weights: Weights, inputs: ModelInputs): tf.Tensor3D;
}

export interface CausalLanguageModel extends ModelBase {
  readonly task: "causal-lm";
  /** Logits are softcap * tanh(logits / softcap); null: as they are. */
  readonly logitSoftcap: number | null;
  /** The output projection, float [V, D]; with a tied head the embedding. */
  outputProjection(weights: Weights): tf.Tensor2D;
}

export interface SequenceClassifier extends ModelBase {
  readonly task: "sequence-classification";
  readonly numLabels: number;
  /** As config.json has it; absent: decided by the labels, as transformers does. */
  readonly problemType: ProblemType | undefined;
  /** By which the last token of a row is found, in models that look for it. */
  readonly padTokenId?: number | null;
  /** float [B, L] from the hidden states of the same inputs. */
  logits(weights: Weights, inputs: ModelInputs, hidden_BTD: tf.Tensor3D): tf.Tensor2D;
}

/** A base model without a head: its output is its hidden states. */
interface FeatureExtractor extends ModelBase {
  readonly task: "feature-extraction";
}

export type Model = CausalLanguageModel | SequenceClassifier | FeatureExtractor;

/** Makes a model of one architecture from its config.json. */
export type CreateModel = (json: Readonly<Record<string, unknown>>, task: Task) => Model;
