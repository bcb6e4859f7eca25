// Shape legend: M rows, D model width, L labels.
import * as tf from "@tensorflow/tfjs-core";
import { LockstepError } from "#lib/core/errors/index";
import { addBias, attention, embedding } from "#lib/ops/index";
import { adaptedMap } from "./adapted-map.js";
import type { LayerAttention, LayerPart, LookUp, ModelInputs, Weights } from "./model.js";

export { dropped } from "./dropped.js";

/** x W^T + b with W as stored, [out, in]; the bias is the weight of the same module, if it has one. */
export function linear(weights: Weights, module: string, x: tf.Tensor, bias: boolean): tf.Tensor {
  return adaptedMap(weights.adapterOf?.(module), x, {
    ...{ weight: weights(`${module}.weight`), isInputMajor: false },
    withBias: (y) => (bias ? addBias(y, weights(`${module}.bias`)) : y),
  });
}

/** x W + b with W as GPT-2's Conv1D stores it, [in, out]. */
export function conv1d(weights: Weights, module: string, x: tf.Tensor): tf.Tensor {
  return adaptedMap(weights.adapterOf?.(module), x, {
    ...{ weight: weights(`${module}.weight`), isInputMajor: true },
    withBias: (y) => addBias(y, weights(`${module}.bias`)),
  });
}

/** The residual stream behind a part of a layer: what `join` makes of its output, or with more in between. */
export function joined(
  weights: Weights,
  layer: number,
  part: LayerPart,
  output: tf.Tensor,
  join: (output: tf.Tensor) => tf.Tensor,
): tf.Tensor {
  const sublayer = weights.sublayerOf?.(layer, part);
  return sublayer === undefined ? join(output) : sublayer(output, join);
}

/**
 * The vectors of the tokens of the inputs, float [M, D].
 *
 * @param lookUp finds those of the model's table; these alone have noise
 */
export function tokenVectors(
  weights: Weights,
  { tokens, dropout }: ModelInputs,
  lookUp: LookUp,
): tf.Tensor {
  const tokens_M = tf.reshape(tokens, [tokens.size]) as tf.Tensor1D;
  const withNoise = dropout?.withNoise;
  const found = withNoise === undefined ? lookUp : (ids: tf.Tensor1D) => withNoise(lookUp(ids));
  return weights.embedOf?.(tokens_M, found) ?? found(tokens_M);
}

/** The attention of a forward pass: the caller's, or over the tokens and segments of the inputs. */
export function attentionOf(inputs: ModelInputs): LayerAttention {
  const { segments, dropout: pass } = inputs;
  return (
    inputs.attention ??
    ((_, q, k, v, options) => attention(q, k, v, options, segments, pass?.sourceOf("attention")))
  );
}

/** Rows of [B, T, D] at one position a row. */
export function rowsAt(hidden_BTD: tf.Tensor3D, positions_B: tf.Tensor1D): tf.Tensor2D {
  const [b, t, d] = hidden_BTD.shape;
  const starts = tf.tensor1d(
    Array.from({ length: b }, (_, row) => row * t),
    "int32",
  );
  const rows_MD = tf.reshape(hidden_BTD, [b * t, d]);
  return tf.gather(rows_MD, tf.add(starts, positions_B) as tf.Tensor1D) as tf.Tensor2D;
}

/** The first token of each row, [B, D]. */
export function firstTokens(hidden_BTD: tf.Tensor3D): tf.Tensor2D {
  const [b, , d] = hidden_BTD.shape;
  return tf.reshape(tf.slice(hidden_BTD, [0, 0, 0], [b, 1, d]), [b, d]);
}

/**
 * Learned positions, float [T, D] or [B, T, D].
 *
 * @param positions_BT absent: 0 to T-1
 * @param offset rows of the table before position 0
 * @param paddingRow a row that gets no gradient; null: none
 */
export function positionEmbeddings(
  table_PD: tf.Tensor,
  numTokens: number,
  positions_BT: tf.Tensor2D | undefined,
  offset = 0,
  paddingRow: number | null = null,
): tf.Tensor {
  const [numRows, d] = table_PD.shape as [number, number];
  if (numTokens + offset > numRows) {
    throw new LockstepError("E_SEQUENCE_TOO_LONG", {
      sequenceLength: numTokens,
      maxLength: numRows - offset,
    });
  }
  if (positions_BT === undefined) return tf.slice(table_PD, [offset, 0], [numTokens, d]);
  const ids = tf.reshape(positions_BT, [positions_BT.size]);
  const rows = offset === 0 ? ids : tf.add(ids, tf.scalar(offset, "int32"));
  const found = embedding(table_PD, rows as tf.Tensor1D, paddingRow);
  return tf.reshape(found, [...positions_BT.shape, d]);
}
