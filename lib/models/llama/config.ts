import { LockstepError } from "#lib/core/errors/index";
import { ConfigReader } from "#lib/models/config-reader";

export interface LlamaConfig {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly numKeyValueHeads: number;
  readonly headDim: number;
  readonly rmsNormEpsilon: number;
  readonly ropeTheta: number;
  readonly maxPositions: number;
  readonly tieWordEmbeddings: boolean;
}

/** Far beyond any model; a list of weights is made of this number before the file is compared with it. */
const maxLayers = 4_096;

/** Reads a Llama config.json of either generation; what would change the arithmetic is refused. */
export function parseLlamaConfig(json: Readonly<Record<string, unknown>>): LlamaConfig {
  const config = new ConfigReader("llama", json);
  config.only("hidden_act", "silu");
  config.only("attention_bias", false);
  config.only("mlp_bias", false);
  config.only("attention_dropout", 0);
  config.only("pretraining_tp", 1);
  const hiddenSize = config.positiveInt("hidden_size");
  const numHeads = config.positiveInt("num_attention_heads");
  const numKeyValueHeads = config.positiveInt("num_key_value_heads", numHeads);
  if (numHeads % numKeyValueHeads !== 0) {
    throw new LockstepError("E_MODEL_CONFIG", {
      model: "llama",
      key: "num_key_value_heads",
      expected: `a divisor of num_attention_heads (${numHeads})`,
      got: String(numKeyValueHeads),
    });
  }
  const headDim = config.positiveInt("head_dim", hiddenSize / numHeads);
  if (headDim % 2 !== 0) {
    throw new LockstepError("E_MODEL_CONFIG", {
      model: "llama",
      key: "head_dim",
      expected: "an even number, for rotary pairs",
      got: String(headDim),
    });
  }
  return Object.freeze({
    vocabSize: config.positiveInt("vocab_size"),
    hiddenSize,
    intermediateSize: config.positiveInt("intermediate_size"),
    numLayers: config.positiveInt("num_hidden_layers", undefined, maxLayers),
    numHeads,
    numKeyValueHeads,
    headDim,
    rmsNormEpsilon: config.positiveNumber("rms_norm_eps", 1e-6),
    ropeTheta: ropeTheta(config),
    maxPositions: config.positiveInt("max_position_embeddings", 2048),
    tieWordEmbeddings: config.boolean("tie_word_embeddings", false),
  });
}

/** Transformers 5 writes `rope_parameters`, 4 wrote `rope_theta` and `rope_scaling`. */
function ropeTheta(config: ConfigReader): number {
  const parameters = config.record("rope_parameters") ?? config.record("rope_scaling");
  if (parameters === undefined) return config.positiveNumber("rope_theta", 10_000);
  const rope = new ConfigReader("llama rope_parameters", parameters);
  rope.only("rope_type", "default");
  rope.only("type", "default");
  return rope.positiveNumber("rope_theta", config.positiveNumber("rope_theta", 10_000));
}
