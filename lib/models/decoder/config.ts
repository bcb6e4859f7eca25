import type { Activation } from "#lib/models/activation";
import type { ConfigReader } from "#lib/models/config-reader";
import type { ModelFacts } from "#lib/models/model-facts";
import type { Rotary } from "#lib/models/rotary-config";

/** What one layer of a decoder does differently from its neighbours. */
interface DecoderLayer {
  /** Keys that a query sees, itself included; null: all before it. */
  readonly window: number | null;
  readonly rotary: Rotary;
}

/** A pre-norm decoder with rotary positions and a gated feed-forward part: the family of Llama. */
export interface DecoderConfig {
  readonly modelType: string;
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numHeads: number;
  readonly numKeyValueHeads: number;
  readonly headDim: number;
  readonly layers: readonly DecoderLayer[];
  readonly activation: Activation;
  readonly normEpsilon: number;
  /** Added to norm weights: Gemma stores them around 0. */
  readonly normOffset: 0 | 1;
  /** Norms behind attention and feed-forward part too (Gemma). */
  readonly sandwichNorms: boolean;
  /** RMSNorm over each head of queries and keys. */
  readonly queryKeyNorms: boolean;
  readonly queryKeyValueBias: boolean;
  readonly outputBias: boolean;
  readonly mlpBias: boolean;
  /** One projection for queries, keys and values, one for gate and up (Phi-3). */
  readonly fusedProjections: boolean;
  /** Factor of attention scores. */
  readonly attentionScale: number;
  readonly attentionSoftcap: number | null;
  readonly logitSoftcap: number | null;
  /** Factor of embeddings; null: 1. */
  readonly embeddingScale: number | null;
  readonly maxPositions: number;
  readonly tieWordEmbeddings: boolean;
  /** Row of the embedding that gets no gradient from inputs, as torch's `padding_idx`. */
  readonly paddingRow: number | null;
  /** `pad_token_id`, by which a classifier finds the last token. */
  readonly padTokenId: number | null;
}

/** What most of the family reads alike. */
export function parseDecoderBase(
  config: ConfigReader,
  { modelType, keys, defaults: usual, scalesTokens, tiesHead }: ModelFacts,
  defaults: {
    readonly numKeyValueHeads?: number;
    readonly headDim?: number;
    readonly normEpsilon?: number;
    readonly activationKey?: "hidden_act" | "hidden_activation";
    readonly activation?: Activation;
  } = {},
) {
  const hiddenSize = config.positiveInt("hidden_size");
  const numHeads = config.positiveInt("num_attention_heads");
  config.only("is_causal", true);
  // Absent is the class's default; null is as many as queries.
  const numKeyValueHeads =
    config.nullableInt("num_key_value_heads", defaults.numKeyValueHeads ?? null) ?? numHeads;
  if (numHeads % numKeyValueHeads !== 0) {
    config.refuse("num_key_value_heads", `a divisor of num_attention_heads (${numHeads})`);
  }
  const vocabSize = config.positiveInt("vocab_size");
  const headDim = config.positiveInt("head_dim", defaults.headDim ?? hiddenSize / numHeads);
  return {
    modelType,
    vocabSize,
    hiddenSize,
    intermediateSize: config.positiveInt("intermediate_size"),
    numHeads,
    numKeyValueHeads,
    headDim,
    activation: config.activation(
      defaults.activationKey ?? "hidden_act",
      defaults.activation ?? "silu",
    ),
    normEpsilon: config.positiveNumber("rms_norm_eps", defaults.normEpsilon ?? 1e-6),
    normOffset: 0,
    sandwichNorms: false,
    queryKeyNorms: false,
    queryKeyValueBias: false,
    outputBias: false,
    mlpBias: false,
    fusedProjections: false,
    attentionScale: 1 / Math.sqrt(headDim),
    attentionSoftcap: null,
    logitSoftcap: null,
    embeddingScale: scalesTokens === true ? Math.sqrt(hiddenSize) : null,
    maxPositions: config.anyPositiveInt(keys.positions, usual.positions),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", tiesHead),
    paddingRow: config.paddingRow(vocabSize, usual.padTokenId),
    padTokenId: config.tokenId("pad_token_id", usual.padTokenId),
  } as const;
}

/**
 * The kinds of the layers: `layer_types` where it is given, else by the layer's index.
 *
 * @param isSliding whether a layer has a sliding window
 */
export function slidingLayers(
  config: ConfigReader,
  numLayers: number,
  isSliding: (layer: number) => boolean,
): readonly boolean[] {
  if (!config.isSet("layer_types"))
    return Array.from({ length: numLayers }, (_, i) => isSliding(i));
  return config.list("layer_types", "string", numLayers).map((type) => {
    if (type === "sliding_attention") return true;
    return type === "full_attention"
      ? false
      : config.unsupported(`layer_types with ${JSON.stringify(type)}`);
  });
}

/** The kinds of Qwen's layers: a window only with `use_sliding_window`, from `max_window_layers` on. */
export function qwenLayers(
  config: ConfigReader,
  numLayers: number,
  rotary: Rotary,
): readonly DecoderLayer[] {
  const window = config.boolean("use_sliding_window", false)
    ? config.nullableInt("sliding_window", 4096)
    : null;
  const firstSliding = config.nonNegativeInt("max_window_layers", 28);
  return slidingLayers(config, numLayers, (layer) => window !== null && layer >= firstSliding).map(
    (sliding) => ({ window: sliding ? window : null, rotary }),
  );
}
