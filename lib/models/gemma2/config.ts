import { ConfigReader } from "#lib/models/config-reader";
import { type DecoderConfig, slidingLayers } from "#lib/models/decoder/config";
import { parseGemmaBase } from "#lib/models/decoder/gemma";
import { parseRotary } from "#lib/models/rotary-config";
import { gemma2 } from "./facts.js";

/** Reads a Gemma 2 config.json: softcaps, and a sliding window on every other layer from the first. */
export function parseGemma2Config(json: Readonly<Record<string, unknown>>): DecoderConfig {
  const config = new ConfigReader(gemma2.modelType, json);
  const base = parseGemmaBase(config, gemma2, {
    attentionSoftcap: 50,
    logitSoftcap: 30,
  });
  const rotary = parseRotary(gemma2.modelType, config, { ...base, theta: 10_000 });
  const window = config.nullableInt("sliding_window", 4096);
  const numLayers = config.layerCount("num_hidden_layers");
  return Object.freeze({
    ...base,
    layers: slidingLayers(config, numLayers, (layer) => layer % 2 === 0).map((sliding) => ({
      window: sliding ? window : null,
      rotary,
    })),
  });
}
