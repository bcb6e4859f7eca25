// Shape legend: B batch, T tokens, M = B*T, D model width, N query heads, K key/value heads,
// H head width, F feed-forward width.
import * as tf from "@tensorflow/tfjs-core";
import { activateGated } from "#lib/models/activation";
import { attentionOf, dropped, joined, linear, tokenVectors } from "#lib/models/layers";
import type { Dropout, LayerAttention, ModelInputs, Weights } from "#lib/models/model";
import type { Rotary } from "#lib/models/rotary-config";
import { rotaryTables, type RotaryTables } from "#lib/models/rotary-tables";
import { checkpointed, embedding, rmsNorm, rotary } from "#lib/ops/index";
import type { DecoderConfig } from "./config.js";
import { tokenEmbedding } from "./facts.js";
import { finalNormName, type LayerModules, layerModules } from "./weights.js";

/** One forward pass: what every layer of it needs. */
interface Pass {
  readonly config: DecoderConfig;
  readonly weights: Weights;
  readonly b: number;
  readonly t: number;
  readonly attention: LayerAttention;
  readonly dropout: Dropout | undefined;
  readonly tablesOf: (rotary: Rotary) => RotaryTables;
}

/**
 * A decoder without its output projection.
 *
 * @returns float [B, T, D] after the final norm
 */
export function decoderHiddenStates(
  config: DecoderConfig,
  weights: Weights,
  inputs: ModelInputs,
): tf.Tensor3D {
  const [b, t] = inputs.tokens.shape;
  const tables = new Map<Rotary, RotaryTables>();
  const pass: Pass = {
    config,
    weights,
    b,
    t,
    attention: attentionOf(inputs),
    dropout: inputs.dropout,
    tablesOf: (kind) => {
      const known =
        tables.get(kind) ?? rotaryTables(kind, t, inputs.positions, inputs.sequenceLength);
      tables.set(kind, known);
      return known;
    },
  };
  // The residual stream is float32: every layer adds a little to a sum that stays.
  let x_MD = tokenVectors(weights, inputs, (ids) => {
    const rows = tf.cast(embedding(weights(tokenEmbedding), ids, config.paddingRow), "float32");
    return config.embeddingScale === null ? rows : tf.mul(rows, tf.scalar(config.embeddingScale));
  });
  for (let layer = 0; layer < config.layers.length; layer++) {
    x_MD = checkpointed(x_MD, (in_MD) => decoderLayer(pass, layer, in_MD));
  }
  const out_MD = normBy(pass, weights(finalNormName), x_MD);
  return tf.reshape(out_MD, [b, t, config.hiddenSize]);
}

function decoderLayer(pass: Pass, layer: number, x_MD: tf.Tensor): tf.Tensor {
  const { config } = pass;
  const names = layerModules(layer);
  const attended_MD = attend(pass, layer, names, norm(pass, names.attentionNorm, x_MD));
  const residual = (x: tf.Tensor): tf.Tensor => dropped(pass.dropout, "residual", x);
  const mid_MD = joined(
    pass.weights,
    layer,
    "attention",
    residual(config.sandwichNorms ? norm(pass, names.postAttentionNorm, attended_MD) : attended_MD),
    (output_MD) => tf.add(x_MD, output_MD),
  );
  const mlpNorm = config.sandwichNorms ? names.preMlpNorm : names.postAttentionNorm;
  const fed_MD = mlp(pass, names, norm(pass, mlpNorm, mid_MD));
  return joined(
    pass.weights,
    layer,
    "feedForward",
    residual(config.sandwichNorms ? norm(pass, names.postMlpNorm, fed_MD) : fed_MD),
    (output_MD) => tf.add(mid_MD, output_MD),
  );
}

const norm = (pass: Pass, module: string, x: tf.Tensor): tf.Tensor =>
  normBy(pass, pass.weights(`${module}.weight`), x);

function normBy({ config }: Pass, weight: tf.Tensor, x: tf.Tensor): tf.Tensor {
  const factor = config.normOffset === 0 ? weight : tf.add(weight, tf.scalar(config.normOffset));
  return rmsNorm(x, factor, config.normEpsilon);
}

function attend(pass: Pass, layer: number, names: LayerModules, x_MD: tf.Tensor): tf.Tensor {
  const { config, b, t } = pass;
  const { numHeads: n, headDim: h } = config;
  const { window, rotary: kind } = config.layers[layer] as DecoderConfig["layers"][number];
  const { cos, sin } = pass.tablesOf(kind);
  const { q_BTNH, k_BTKH, v_BTKH } = queriesKeysValues(pass, names, x_MD);
  const mixed_BTNH = pass.attention(
    layer,
    rotary(q_BTNH, cos, sin),
    rotary(k_BTKH, cos, sin),
    v_BTKH,
    { scale: config.attentionScale, causal: true, window, softcap: config.attentionSoftcap },
  );
  const mixed_MD = tf.reshape(mixed_BTNH, [b * t, n * h]);
  return linear(pass.weights, names.output, mixed_MD, config.outputBias);
}

/** Heads of queries, keys and values before they turn. */
function queriesKeysValues(pass: Pass, names: LayerModules, x_MD: tf.Tensor) {
  const { config, weights, b, t } = pass;
  const { numHeads: n, numKeyValueHeads: k, headDim: h, queryKeyValueBias: bias } = config;
  const heads = (x: tf.Tensor, count: number): tf.Tensor => tf.reshape(x, [b, t, count, h]);
  const projected = (module: string, count: number): tf.Tensor =>
    heads(linear(weights, module, x_MD, bias), count);
  const split = (): readonly [tf.Tensor, tf.Tensor, tf.Tensor] => {
    const fused = linear(weights, names.queryKeyValue, x_MD, bias);
    const [q, key, v] = tf.split(fused, [n * h, k * h, k * h], 1) as [
      tf.Tensor,
      tf.Tensor,
      tf.Tensor,
    ];
    return [heads(q, n), heads(key, k), heads(v, k)];
  };
  const [q_BTNH, k_BTKH, v_BTKH] = config.fusedProjections
    ? split()
    : [projected(names.query, n), projected(names.key, k), projected(names.value, k)];
  if (!config.queryKeyNorms) return { q_BTNH, k_BTKH, v_BTKH };
  return {
    q_BTNH: norm(pass, names.queryNorm, q_BTNH),
    k_BTKH: norm(pass, names.keyNorm, k_BTKH),
    v_BTKH,
  };
}

function mlp({ config, weights }: Pass, names: LayerModules, x_MD: tf.Tensor): tf.Tensor {
  const [gate_MF, up_MF] = config.fusedProjections
    ? (tf.split(linear(weights, names.gateUp, x_MD, config.mlpBias), 2, 1) as [
        tf.Tensor,
        tf.Tensor,
      ])
    : [
        linear(weights, names.gate, x_MD, config.mlpBias),
        linear(weights, names.up, x_MD, config.mlpBias),
      ];
  const hidden_MF = activateGated(config.activation, gate_MF, up_MF);
  return linear(weights, names.down, hidden_MF, config.mlpBias);
}
