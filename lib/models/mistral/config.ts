import { ConfigReader } from "#lib/models/config-reader";
import { type DecoderConfig, parseDecoderBase } from "#lib/models/decoder/config";
import { parseRotary } from "#lib/models/rotary-config";
import { mistral } from "./facts.js";

/** Reads a Mistral config.json; every layer has the sliding window, 4096 where the file has none. */
export function parseMistralConfig(json: Readonly<Record<string, unknown>>): DecoderConfig {
  const config = new ConfigReader(mistral.modelType, json);
  const base = parseDecoderBase(config, mistral, {
    numKeyValueHeads: 8,
  });
  const rotary = parseRotary(mistral.modelType, config, { ...base, theta: 10_000 });
  const window = config.nullableInt("sliding_window", 4096);
  const numLayers = config.layerCount("num_hidden_layers");
  return Object.freeze({
    ...base,
    layers: Array.from({ length: numLayers }, () => ({ window, rotary })),
  });
}
