// Shape legend: B batch, T tokens, M = B*T, D model width.
import * as tf from "@tensorflow/tfjs-core";
import { ConfigReader } from "#lib/models/config-reader";
import { positionEmbeddings, tokenVectors } from "#lib/models/layers";
import type { ModelFacts } from "#lib/models/model-facts";
import type { ModelInputs, WeightSpec, Weights } from "#lib/models/model";
import { embedding } from "#lib/ops/index";
import { type EncoderConfig, encoderHiddenStates } from "./forward.js";
import { layerWeights, normWeights } from "./weights.js";

/** BERT and RoBERTa: one layout of weights under two prefixes, and two ways to number positions. */
interface BertConfig extends EncoderConfig {
  readonly facts: ModelFacts;
  readonly vocabSize: number;
  readonly typeVocabSize: number;
  /** Rows of the table of positions. */
  readonly numPositions: number;
  readonly paddingRow: number | null;
}

export function parseBertConfig(
  facts: ModelFacts,
  json: Readonly<Record<string, unknown>>,
  { vocabSize: usualVocabSize }: { readonly vocabSize: number },
): BertConfig {
  const { modelType, basePrefix, keys, defaults } = facts;
  const config = new ConfigReader(modelType, json);
  config.only("is_decoder", false);
  config.only("add_cross_attention", false);
  config.only("position_embedding_type", "absolute");
  const hiddenSize = config.anyPositiveInt(keys.width, defaults.width);
  const numHeads = config.anyPositiveInt(keys.heads, 12);
  if (hiddenSize % numHeads !== 0) {
    config.refuse("num_attention_heads", `a divisor of hidden_size (${hiddenSize})`);
  }
  const vocabSize = config.positiveInt("vocab_size", usualVocabSize);
  const numLayers = config.layerCount(keys.layers, 12);
  return Object.freeze({
    facts,
    vocabSize,
    hiddenSize,
    intermediateSize: config.positiveInt("intermediate_size", 3072),
    numHeads,
    activation: config.activation("hidden_act", "gelu"),
    layerNormEpsilon: config.positiveNumber("layer_norm_eps", 1e-12),
    dropsAttentionOutput: true,
    typeVocabSize: config.positiveInt("type_vocab_size", 2),
    numPositions: config.anyPositiveInt(keys.positions, defaults.positions),
    paddingRow: config.paddingRow(vocabSize, defaults.padTokenId),
    layers: Array.from({ length: numLayers }, (_, layer) => layerModules(basePrefix, layer)),
  });
}

function layerModules(prefix: string, layer: number) {
  const module = `${prefix}encoder.layer.${layer}`;
  return {
    query: `${module}.attention.self.query`,
    key: `${module}.attention.self.key`,
    value: `${module}.attention.self.value`,
    output: `${module}.attention.output.dense`,
    attentionNorm: `${module}.attention.output.LayerNorm`,
    up: `${module}.intermediate.dense`,
    down: `${module}.output.dense`,
    mlpNorm: `${module}.output.LayerNorm`,
  } as const;
}

const embeddingNames = ({ basePrefix: prefix, tokenEmbedding }: ModelFacts) =>
  ({
    words: tokenEmbedding,
    positions: `${prefix}embeddings.position_embeddings.weight`,
    types: `${prefix}embeddings.token_type_embeddings.weight`,
    norm: `${prefix}embeddings.LayerNorm`,
  }) as const;

/** The weights of the base model without its pooler. */
export function bertWeights(config: BertConfig): readonly WeightSpec[] {
  const { hiddenSize: d } = config;
  const names = embeddingNames(config.facts);
  return [
    { name: names.words, shape: [config.vocabSize, d] },
    { name: names.positions, shape: [config.numPositions, d] },
    { name: names.types, shape: [config.typeVocabSize, d] },
    ...normWeights(names.norm, d),
    ...layerWeights(config),
  ];
}

/**
 * Hidden states of the last layer.
 *
 * @param positions how rows of the table are found
 */
export function bertHiddenStates(
  config: BertConfig,
  weights: Weights,
  inputs: ModelInputs,
  positions: {
    readonly ids: tf.Tensor2D | undefined;
    readonly offset: number;
    readonly paddingRow: number | null;
  },
): tf.Tensor3D {
  const [b, t] = inputs.tokens.shape;
  const names = embeddingNames(config.facts);
  const flat = (ids: tf.Tensor2D): tf.Tensor1D => tf.reshape(ids, [b * t]) as tf.Tensor1D;
  const rows = (found_MD: tf.Tensor): tf.Tensor =>
    tf.cast(tf.reshape(found_MD, [b, t, config.hiddenSize]), "float32");
  const words_BTD = rows(
    tokenVectors(weights, inputs, (ids_M) =>
      embedding(weights(names.words), ids_M, config.paddingRow),
    ),
  );
  const typeTable = weights(names.types);
  const types =
    inputs.tokenTypes === undefined
      ? tf.slice(typeTable, [0, 0], [1, config.hiddenSize])
      : rows(embedding(typeTable, flat(inputs.tokenTypes), null));
  const { ids, offset, paddingRow } = positions;
  const places = positionEmbeddings(weights(names.positions), t, ids, offset, paddingRow);
  const sum_BTD = tf.add(tf.add(words_BTD, types), places);
  return encoderHiddenStates(config, weights, inputs, names.norm, sum_BTD);
}
