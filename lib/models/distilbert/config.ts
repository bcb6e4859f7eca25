import { ConfigReader } from "#lib/models/config-reader";
import type { EncoderConfig } from "#lib/models/encoder/forward";

export interface DistilBertConfig extends EncoderConfig {
  readonly vocabSize: number;
  readonly maxPositions: number;
  readonly paddingRow: number | null;
  readonly dropouts: Readonly<Record<string, number>>;
}

export function parseDistilBertConfig(json: Readonly<Record<string, unknown>>): DistilBertConfig {
  const config = new ConfigReader("distilbert", json);
  // Sinusoidal positions are a table that is not trained.
  config.only("sinusoidal_pos_embds", false);
  const int = (key: string, alias: string, fallback: number): number =>
    config.positiveInt(key, config.positiveInt(alias, fallback));
  const hiddenSize = int("dim", "hidden_size", 768);
  const numHeads = int("n_heads", "num_attention_heads", 12);
  if (hiddenSize % numHeads !== 0) config.refuse("n_heads", `a divisor of dim (${hiddenSize})`);
  const vocabSize = config.positiveInt("vocab_size", 30_522);
  const numLayers = config.layerCount("n_layers", config.layerCount("num_hidden_layers", 6));
  return Object.freeze({
    vocabSize,
    hiddenSize,
    intermediateSize: config.positiveInt("hidden_dim", 3072),
    numHeads,
    activation: config.activation("activation", "gelu"),
    // transformers has no option for it.
    layerNormEpsilon: 1e-12,
    maxPositions: config.positiveInt("max_position_embeddings", 512),
    paddingRow: config.paddingRow(vocabSize, 0),
    dropouts: config.dropouts(["dropout", "attention_dropout", "seq_classif_dropout"]),
    layers: Array.from({ length: numLayers }, (_, layer) => layerModules(layer)),
  });
}

function layerModules(layer: number) {
  const module = `distilbert.transformer.layer.${layer}`;
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
