// Shape legend: B batch, T tokens, M = B*T, D model width, N heads, H head width.
import * as tf from "@tensorflow/tfjs-core";
import { type Activation, activate } from "#lib/models/activation";
import { attentionOf, dropped, joined, linear } from "#lib/models/layers";
import type { ModelInputs, Weights } from "#lib/models/model";
import { checkpointed, layerNorm } from "#lib/ops/index";

/** Names of one layer's modules; projections are [out, in] and have biases. */
interface EncoderModules {
  readonly query: string;
  readonly key: string;
  readonly value: string;
  readonly output: string;
  readonly attentionNorm: string;
  readonly up: string;
  readonly down: string;
  readonly mlpNorm: string;
}

/** The layers of BERT and its relatives. */
export interface EncoderConfig {
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numHeads: number;
  readonly activation: Activation;
  readonly layerNormEpsilon: number;
  /** Whether training drops values behind attention's output projection; it does behind the second of the MLP. */
  readonly dropsAttentionOutput: boolean;
  readonly layers: readonly EncoderModules[];
}

/**
 * Post-norm layers with attention in both directions.
 *
 * @param embeddings_BTD the sum of all embeddings, before its norm
 * @returns float [B, T, D]
 */
export function encoderHiddenStates(
  config: EncoderConfig,
  weights: Weights,
  inputs: ModelInputs,
  embeddingNorm: string,
  embeddings_BTD: tf.Tensor,
): tf.Tensor3D {
  const [b, t] = inputs.tokens.shape;
  const { hiddenSize: d, numHeads: n } = config;
  const attention = attentionOf(inputs);
  const norm = (module: string, x: tf.Tensor): tf.Tensor =>
    layerNorm(x, weights(`${module}.weight`), weights(`${module}.bias`), config.layerNormEpsilon);
  const residual = (x: tf.Tensor): tf.Tensor => dropped(inputs.dropout, "residual", x);
  const embedded_MD = norm(embeddingNorm, tf.reshape(embeddings_BTD, [b * t, d]));
  let x_MD = dropped(inputs.dropout, "embeddings", embedded_MD);
  config.layers.forEach((names, layer) => {
    x_MD = checkpointed(x_MD, (in_MD) => {
      const [q, k, v] = [names.query, names.key, names.value].map((module) =>
        tf.reshape(linear(weights, module, in_MD, true), [b, t, n, d / n]),
      ) as [tf.Tensor, tf.Tensor, tf.Tensor];
      const mixed_BTNH = attention(layer, q, k, v, { scale: 1 / Math.sqrt(d / n), causal: false });
      const output_MD = linear(weights, names.output, tf.reshape(mixed_BTNH, [b * t, d]), true);
      const mixed_MD = config.dropsAttentionOutput ? residual(output_MD) : output_MD;
      const attended_MD = joined(weights, layer, "attention", mixed_MD, (y_MD) =>
        norm(names.attentionNorm, tf.add(y_MD, in_MD)),
      );
      const up_MF = activate(config.activation, linear(weights, names.up, attended_MD, true));
      const down_MD = residual(linear(weights, names.down, up_MF, true));
      return joined(weights, layer, "feedForward", down_MD, (y_MD) =>
        norm(names.mlpNorm, tf.add(y_MD, attended_MD)),
      );
    });
  });
  return tf.reshape(x_MD, [b, t, d]);
}
