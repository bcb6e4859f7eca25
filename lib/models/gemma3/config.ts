import { ConfigReader } from "#lib/models/config-reader";
import { type DecoderConfig, slidingLayers } from "#lib/models/decoder/config";
import { parseGemmaBase } from "#lib/models/decoder/gemma";
import { parseRotaryParameters, type Rotary } from "#lib/models/rotary-config";
import { gemma3 } from "./facts.js";

/** Reads the config.json of a Gemma 3 text model: local layers with a window and angles of their own. */
export function parseGemma3Config(json: Readonly<Record<string, unknown>>): DecoderConfig {
  const config = new ConfigReader(gemma3.modelType, json);
  // transformers reads the cap of attention scores and does not apply it; a set one is ambiguous.
  if (config.isSet("attn_logit_softcapping")) config.unsupported("attn_logit_softcapping");
  const base = parseGemmaBase(config, gemma3, {
    attentionSoftcap: null,
    logitSoftcap: null,
  });
  const window = config.nullableInt("sliding_window", 4096);
  const pattern = config.positiveInt("sliding_window_pattern", 6);
  const local = rotaryOf(config, base, "sliding_attention");
  const global = rotaryOf(config, base, "full_attention");
  const numLayers = config.layerCount("num_hidden_layers");
  return Object.freeze({
    ...base,
    layers: slidingLayers(config, numLayers, (layer) => (layer + 1) % pattern !== 0).map(
      (sliding) => (sliding ? { window, rotary: local } : { window: null, rotary: global }),
    ),
    queryKeyNorms: true,
  });
}

/**
 * Transformers 5 nests `rope_parameters` by the kind of layer; 4 wrote `rope_local_base_freq` for
 * local layers, `rope_theta` and `rope_scaling` for global ones.
 */
function rotaryOf(
  config: ConfigReader,
  base: { readonly headDim: number; readonly maxPositions: number },
  kind: "sliding_attention" | "full_attention",
): Rotary {
  const isGlobal = kind === "full_attention";
  const nested = new ConfigReader(
    `${gemma3.modelType} rope_parameters`,
    config.record("rope_parameters") ?? {},
  );
  const parameters = {
    ...nested.record(kind),
    ...(isGlobal ? config.record("rope_scaling") : undefined),
  };
  const theta = isGlobal
    ? config.positiveNumber("rope_theta", 1_000_000)
    : config.positiveNumber("rope_local_base_freq", 10_000);
  return parseRotaryParameters(gemma3.modelType, parameters, config, { ...base, theta });
}
