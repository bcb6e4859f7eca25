import type { Activation } from "#lib/models/activation";
import { ConfigReader } from "#lib/models/config-reader";
import { gpt2 } from "./facts.js";

export interface Gpt2Config {
  readonly vocabSize: number;
  readonly maxPositions: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly activation: Activation;
  readonly layerNormEpsilon: number;
  readonly scaleByHeadWidth: boolean;
  /** Scores of layer i are divided by i + 1 too. */
  readonly scaleByLayer: boolean;
  readonly tieWordEmbeddings: boolean;
  readonly padTokenId: number | null;
}

/** Reads a GPT-2 config.json. `reorder_and_upcast_attn` is how float16 keeps its range: no arithmetic. */
export function parseGpt2Config(json: Readonly<Record<string, unknown>>): Gpt2Config {
  const config = new ConfigReader(gpt2.modelType, json);
  config.only("add_cross_attention", false);
  config.only("is_causal", true);
  const { keys, defaults } = gpt2;
  const hiddenSize = config.anyPositiveInt(keys.width, defaults.width);
  const numHeads = config.anyPositiveInt(keys.heads, 12);
  if (hiddenSize % numHeads !== 0) config.refuse("n_head", `a divisor of n_embd (${hiddenSize})`);
  return Object.freeze({
    vocabSize: config.positiveInt("vocab_size", 50_257),
    maxPositions: config.anyPositiveInt(keys.positions, defaults.positions),
    hiddenSize,
    intermediateSize: config.positiveInt("n_inner", 4 * hiddenSize),
    numLayers: config.layerCount(keys.layers, 12),
    numHeads,
    activation: config.activation("activation_function", "gelu_new"),
    layerNormEpsilon: config.positiveNumber("layer_norm_epsilon", 1e-5),
    scaleByHeadWidth: config.boolean("scale_attn_weights", true),
    scaleByLayer: config.boolean("scale_attn_by_inverse_layer_idx", false),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", gpt2.tiesHead),
    padTokenId: config.tokenId("pad_token_id", defaults.padTokenId),
  });
}
