// Shape legend: B batch, T tokens, M = B*T, D model width, N query heads, K key/value heads,
// H head width, F feed-forward width.
import * as tf from "@tensorflow/tfjs-core";
import type { Weights } from "#lib/models/model";
import { rotaryTables } from "#lib/models/rotary-tables";
import { attention as attend, rmsNorm, rotary, swiGlu } from "#lib/ops/index";
import type { LlamaConfig } from "./config.js";
import { embedding, finalNorm, layerNames } from "./weights.js";

/**
 * Llama's decoder without its output projection.
 *
 * @param tokens_BT int32
 * @returns float [B, T, D] after the final norm
 */
export function llamaHiddenStates(
  config: LlamaConfig,
  weights: Weights,
  tokens_BT: tf.Tensor2D,
): tf.Tensor3D {
  const [b, t] = tokens_BT.shape;
  const d = config.hiddenSize;
  const tables = rotaryTables(t, config.headDim, config.ropeTheta);
  const tokens_M = tf.reshape(tokens_BT, [b * t]) as tf.Tensor1D;
  // The residual stream is float32: every layer adds a little to a sum that stays.
  let x_MD = tf.cast(tf.gather(weights(embedding), tokens_M), "float32");
  for (let layer = 0; layer < config.numLayers; layer++) {
    const names = layerNames(layer);
    const attentionIn_MD = rmsNorm(x_MD, weights(names.attentionNorm), config.rmsNormEpsilon);
    x_MD = tf.add(x_MD, attention(config, weights, names, attentionIn_MD, [b, t], tables));
    const mlpIn_MD = rmsNorm(x_MD, weights(names.mlpNorm), config.rmsNormEpsilon);
    x_MD = tf.add(x_MD, mlp(weights, names, mlpIn_MD));
  }
  const out_MD = rmsNorm(x_MD, weights(finalNorm), config.rmsNormEpsilon);
  return tf.reshape(out_MD, [b, t, d]);
}

type LayerNames = ReturnType<typeof layerNames>;
interface Tables {
  readonly cos: tf.Tensor;
  readonly sin: tf.Tensor;
}

function attention(
  config: LlamaConfig,
  weights: Weights,
  names: LayerNames,
  x_MD: tf.Tensor,
  [b, t]: readonly [number, number],
  tables: Tables,
): tf.Tensor {
  const { numHeads: n, numKeyValueHeads: k, headDim: h } = config;
  const q_BTNH = tf.reshape(linear(x_MD, weights(names.query)), [b, t, n, h]);
  const k_BTKH = tf.reshape(linear(x_MD, weights(names.key)), [b, t, k, h]);
  const v_BTKH = tf.reshape(linear(x_MD, weights(names.value)), [b, t, k, h]);
  const mixed_BTNH = attend(
    rotary(q_BTNH, tables.cos, tables.sin),
    rotary(k_BTKH, tables.cos, tables.sin),
    v_BTKH,
    { scale: 1 / Math.sqrt(h), causal: true },
  );
  return linear(tf.reshape(mixed_BTNH, [b * t, n * h]), weights(names.output));
}

function mlp(weights: Weights, names: LayerNames, x_MD: tf.Tensor): tf.Tensor {
  const hidden_MF = swiGlu(linear(x_MD, weights(names.gate)), linear(x_MD, weights(names.up)));
  return linear(hidden_MF, weights(names.down));
}

/** x W^T with W as stored, [out, in]. */
const linear = (x: tf.Tensor, weight: tf.Tensor): tf.Tensor => tf.matMul(x, weight, false, true);
