// Shape legend: B batch, T tokens, M = B*T, D model width, L labels.
import * as tf from "@tensorflow/tfjs-core";
import { encoderHiddenStates } from "#lib/models/encoder/forward";
import { dropped, firstTokens, linear, positionEmbeddings, tokenVectors } from "#lib/models/layers";
import type { Dropout, ModelInputs, Weights } from "#lib/models/model";
import { embedding } from "#lib/ops/index";
import type { DistilBertConfig } from "./config.js";
import { distilbert } from "./facts.js";
import { classifier, embeddingNorm, positions, preClassifier } from "./weights.js";

/** @returns float [B, T, D] of the last layer */
export function distilBertHiddenStates(
  config: DistilBertConfig,
  weights: Weights,
  inputs: ModelInputs,
): tf.Tensor3D {
  const [b, t] = inputs.tokens.shape;
  const found_MD = tokenVectors(weights, inputs, (ids_M) =>
    embedding(weights(distilbert.tokenEmbedding), ids_M, config.paddingRow),
  );
  const words_BTD = tf.cast(tf.reshape(found_MD, [b, t, config.hiddenSize]), "float32");
  const places = positionEmbeddings(weights(positions), t, inputs.positions);
  return encoderHiddenStates(config, weights, inputs, embeddingNorm, tf.add(words_BTD, places));
}

/** @returns float [B, L] */
export function distilBertClassify(
  weights: Weights,
  hidden_BTD: tf.Tensor3D,
  dropout: Dropout | undefined,
): tf.Tensor2D {
  const first_BD = tf.relu(linear(weights, preClassifier, firstTokens(hidden_BTD), true));
  const kept_BD = dropped(dropout, "classifier", first_BD);
  return linear(weights, classifier, kept_BD, true) as tf.Tensor2D;
}
