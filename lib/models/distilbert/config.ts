import { ConfigReader } from "#lib/models/config-reader";
import type { EncoderConfig } from "#lib/models/encoder/forward";
import { distilbert } from "./facts.js";

export interface DistilBertConfig extends EncoderConfig {
  readonly vocabSize: number;
  readonly maxPositions: number;
  readonly paddingRow: number | null;
}

export function parseDistilBertConfig(json: Readonly<Record<string, unknown>>): DistilBertConfig {
  const config = new ConfigReader(distilbert.modelType, json);
  // Sinusoidal positions are a table that is not trained.
  config.only("sinusoidal_pos_embds", false);
  const { keys, defaults } = distilbert;
  const hiddenSize = config.anyPositiveInt(keys.width, defaults.width);
  const numHeads = config.anyPositiveInt(keys.heads, 12);
  if (hiddenSize % numHeads !== 0) config.refuse("n_heads", `a divisor of dim (${hiddenSize})`);
  const vocabSize = config.positiveInt("vocab_size", 30_522);
  const numLayers = config.layerCount(keys.layers, 6);
  return Object.freeze({
    vocabSize,
    hiddenSize,
    intermediateSize: config.positiveInt("hidden_dim", 3072),
    numHeads,
    activation: config.activation("activation", "gelu"),
    // transformers has no option for it.
    layerNormEpsilon: 1e-12,
    dropsAttentionOutput: false,
    maxPositions: config.anyPositiveInt(keys.positions, defaults.positions),
    paddingRow: config.paddingRow(vocabSize, defaults.padTokenId),
    layers: Array.from({ length: numLayers }, (_, layer) => layerModules(layer)),
  });
}

function layerModules(layer: number) {
  const module = `${distilbert.basePrefix}transformer.layer.${layer}`;
  return {
    query: `${module}.attention.q_lin`,
    key: `${module}.attention.k_lin`,
    value: `${module}.attention.v_lin`,
    output: `${module}.attention.out_lin`,
    attentionNorm: `${module}.sa_layer_norm`,
    up: `${module}.ffn.lin1`,
    down: `${module}.ffn.lin2`,
    mlpNorm: `${module}.output_layer_norm`,
  } as const;
}
