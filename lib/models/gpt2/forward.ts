// Shape legend: B batch, T tokens, M = B*T, D model width, N heads, H head width.
import * as tf from "@tensorflow/tfjs-core";
import { activate } from "#lib/models/activation";
import {
  attentionOf,
  conv1d,
  dropped,
  joined,
  positionEmbeddings,
  tokenVectors,
} from "#lib/models/layers";
import type { ModelInputs, Weights } from "#lib/models/model";
import { checkpointed, embedding, layerNorm } from "#lib/ops/index";
import type { Gpt2Config } from "./config.js";
import { gpt2 } from "./facts.js";
import { finalNorm, type LayerModules, layerModules, positionsName } from "./weights.js";

/**
 * GPT-2 without its output projection.
 *
 * @returns float [B, T, D] after the final norm
 */
export function gpt2HiddenStates(
  config: Gpt2Config,
  weights: Weights,
  inputs: ModelInputs,
): tf.Tensor3D {
  const [b, t] = inputs.tokens.shape;
  const { hiddenSize: d, layerNormEpsilon } = config;
  const norm = (module: string, x: tf.Tensor): tf.Tensor =>
    layerNorm(x, weights(`${module}.weight`), weights(`${module}.bias`), layerNormEpsilon);
  // The residual stream is float32: every layer adds a little to a sum that stays.
  const embedded_BTD = dropped(inputs.dropout, "embeddings", embed(weights, inputs));
  let x_MD = tf.reshape(embedded_BTD, [b * t, d]);
  for (let layer = 0; layer < config.numLayers; layer++) {
    const names = layerModules(layer);
    x_MD = checkpointed(x_MD, (in_MD) => {
      const attentionIn_MD = norm(names.attentionNorm, in_MD);
      const attended_MD = attend(config, weights, inputs, layer, names, attentionIn_MD);
      const mid_MD = joined(weights, layer, "attention", attended_MD, (output_MD) =>
        tf.add(in_MD, output_MD),
      );
      const up_MF = conv1d(weights, names.up, norm(names.mlpNorm, mid_MD));
      const down_MD = conv1d(weights, names.down, activate(config.activation, up_MF));
      const fed_MD = dropped(inputs.dropout, "residual", down_MD);
      return joined(weights, layer, "feedForward", fed_MD, (output_MD) =>
        tf.add(mid_MD, output_MD),
      );
    });
  }
  return tf.reshape(norm(finalNorm, x_MD), [b, t, d]);
}

function embed(weights: Weights, inputs: ModelInputs): tf.Tensor {
  const [b, t] = inputs.tokens.shape;
  const table = weights(gpt2.tokenEmbedding);
  const lookUp = (ids_M: tf.Tensor1D): tf.Tensor =>
    tf.cast(embedding(table, ids_M, null), "float32");
  const flat = (ids: tf.Tensor2D): tf.Tensor1D => tf.reshape(ids, [b * t]) as tf.Tensor1D;
  const rows = (found_MD: tf.Tensor): tf.Tensor =>
    tf.reshape(found_MD, [b, t, table.shape[1] as number]);
  const words_BTD = rows(tokenVectors(weights, inputs, lookUp));
  const positions = positionEmbeddings(weights(positionsName), t, inputs.positions);
  const tokens_BTD = tf.add(words_BTD, tf.cast(positions, "float32"));
  // GPT-2 has no table of types: it looks them up among the words.
  if (inputs.tokenTypes === undefined) return tokens_BTD;
  return tf.add(tokens_BTD, rows(lookUp(flat(inputs.tokenTypes))));
}

function attend(
  config: Gpt2Config,
  weights: Weights,
  inputs: ModelInputs,
  layer: number,
  names: LayerModules,
  x_MD: tf.Tensor,
): tf.Tensor {
  const [b, t] = inputs.tokens.shape;
  const { hiddenSize: d, numHeads: n } = config;
  const h = d / n;
  const heads = tf.split(conv1d(weights, names.queryKeyValue, x_MD), 3, 1) as [
    tf.Tensor,
    tf.Tensor,
    tf.Tensor,
  ];
  const [q, k, v] = heads.map((x) => tf.reshape(x, [b, t, n, h])) as typeof heads;
  const headScale = config.scaleByHeadWidth ? 1 / Math.sqrt(h) : 1;
  const mixed_BTNH = attentionOf(inputs)(layer, q, k, v, {
    scale: config.scaleByLayer ? headScale / (layer + 1) : headScale,
    causal: true,
  });
  const output_MD = conv1d(weights, names.output, tf.reshape(mixed_BTNH, [b * t, d]));
  return dropped(inputs.dropout, "residual", output_MD);
}
