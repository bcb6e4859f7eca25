import { ConfigReader } from "./config-reader.js";

interface Scaled {
  readonly theta: number;
  /** Elements of a head that turn. */
  readonly width: number;
}

/** Rotary positions of one kind of layer, with the names and meanings of transformers' `rope_type`. */
export type Rotary = Scaled &
  (
    | { readonly type: "default" }
    | { readonly type: "linear"; readonly factor: number }
    | { readonly type: "dynamic"; readonly factor: number; readonly maxPositions: number }
    | {
        readonly type: "llama3";
        readonly factor: number;
        readonly lowFrequencyFactor: number;
        readonly highFrequencyFactor: number;
        readonly originalMaxPositions: number;
      }
    | {
        readonly type: "yarn";
        readonly factor: number;
        readonly attentionFactor: number;
        readonly betaFast: number;
        readonly betaSlow: number;
        readonly truncate: boolean;
        readonly originalMaxPositions: number;
      }
    | {
        readonly type: "longrope";
        readonly shortFactor: readonly number[];
        readonly longFactor: readonly number[];
        readonly attentionFactor: number;
        readonly originalMaxPositions: number;
      }
  );

interface RotaryDefaults {
  readonly headDim: number;
  readonly theta: number;
  readonly maxPositions: number;
  /** Share of the head that turns; only some models read `partial_rotary_factor`. */
  readonly partial?: boolean;
  /** Where the configuration class has a default of its own, which beats the dictionary. */
  readonly originalMaxPositions?: number;
  /** Older names of types. */
  readonly aliases?: Readonly<Record<string, string>>;
}

/**
 * Reads the rotary options of a whole model: transformers 5 writes `rope_parameters`, 4 wrote
 * `rope_theta` and `rope_scaling`.
 */
export function parseRotary(model: string, config: ConfigReader, defaults: RotaryDefaults): Rotary {
  const parameters = config.record("rope_scaling") ?? config.record("rope_parameters") ?? {};
  const theta = config.positiveNumber("rope_theta", defaults.theta);
  return parseRotaryParameters(model, parameters, config, { ...defaults, theta });
}

/**
 * Reads one dictionary of rotary parameters.
 *
 * @param config the model's, for what stands beside the dictionary
 */
export function parseRotaryParameters(
  model: string,
  parameters: Readonly<Record<string, unknown>>,
  config: ConfigReader,
  defaults: RotaryDefaults,
): Rotary {
  const rope = new ConfigReader(`${model} rotary`, parameters);
  if (rope.record("full_attention") !== undefined) {
    config.unsupported("rope_parameters by layer type");
  }
  const theta = rope.positiveNumber("rope_theta", defaults.theta);
  const share = rope.positiveNumber(
    "partial_rotary_factor",
    config.positiveNumber("partial_rotary_factor", 1),
  );
  if (defaults.partial !== true && share !== 1) {
    config.unsupported(`partial_rotary_factor = ${share}`);
  }
  const width = Math.trunc(defaults.headDim * share);
  if (width % 2 !== 0 || width > defaults.headDim || width === 0) {
    config.refuse(
      "head_dim",
      `such that an even part of ${defaults.headDim} turns (now ${width}), for rotary pairs`,
    );
  }
  const named = rope.string("rope_type", rope.string("type", "default"));
  const type = defaults.aliases?.[named] ?? named;
  const base = { theta, width };
  const factor = (): number => rope.positiveNumber("factor");
  const originalMaxPositions = (): number =>
    config.positiveInt(
      "original_max_position_embeddings",
      defaults.originalMaxPositions ??
        rope.positiveInt("original_max_position_embeddings", defaults.maxPositions),
    );
  switch (type) {
    case "default":
      return { type, ...base };
    case "linear":
      return { type, ...base, factor: factor() };
    case "dynamic":
      return { type, ...base, factor: factor(), maxPositions: defaults.maxPositions };
    case "llama3":
      return {
        type,
        ...base,
        factor: factor(),
        lowFrequencyFactor: rope.positiveNumber("low_freq_factor"),
        highFrequencyFactor: rope.positiveNumber("high_freq_factor"),
        originalMaxPositions: originalMaxPositions(),
      };
    case "yarn":
      return {
        type,
        ...base,
        factor: factor(),
        attentionFactor: yarnAttentionFactor(rope, factor()),
        betaFast: rope.positiveNumber("beta_fast", 32),
        betaSlow: rope.positiveNumber("beta_slow", 1),
        truncate: rope.boolean("truncate", true),
        originalMaxPositions: originalMaxPositions(),
      };
    case "longrope": {
      const original = originalMaxPositions();
      const stretch = rope.positiveNumber("factor", defaults.maxPositions / original);
      const suggested = stretch <= 1 ? 1 : Math.sqrt(1 + Math.log(stretch) / Math.log(original));
      return {
        type,
        ...base,
        shortFactor: rope.list("short_factor", "number", width / 2),
        longFactor: rope.list("long_factor", "number", width / 2),
        attentionFactor: rope.positiveNumber("attention_factor", suggested),
        originalMaxPositions: original,
      };
    }
    default:
      return config.unsupported(`rope_type = ${JSON.stringify(named)}`);
  }
}

/** Peng et al. 2023, with DeepSeek's two `mscale` options. */
function yarnAttentionFactor(rope: ConfigReader, factor: number): number {
  const given = rope.optionalNumber("attention_factor");
  if (given !== null) return given;
  const scale = (strength: number): number =>
    factor <= 1 ? 1 : 0.1 * strength * Math.log(factor) + 1;
  const mscale = rope.isSet("mscale") ? rope.positiveNumber("mscale") : 0;
  const allDim = rope.isSet("mscale_all_dim") ? rope.positiveNumber("mscale_all_dim") : 0;
  return mscale > 0 && allDim > 0 ? scale(mscale) / scale(allDim) : scale(1);
}
