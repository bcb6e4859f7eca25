import { ConfigReader } from "#lib/models/config-reader";
import { type DecoderConfig, parseDecoderBase, qwenLayers } from "#lib/models/decoder/config";
import { parseRotary } from "#lib/models/rotary-config";
import { qwen2 } from "./facts.js";

/** Reads a Qwen2 config.json: biases on queries, keys and values. */
export function parseQwen2Config(json: Readonly<Record<string, unknown>>): DecoderConfig {
  const config = new ConfigReader(qwen2.modelType, json);
  const base = parseDecoderBase(config, qwen2, {
    numKeyValueHeads: 32,
  });
  const rotary = parseRotary(qwen2.modelType, config, { ...base, theta: 10_000 });
  return Object.freeze({
    ...base,
    layers: qwenLayers(config, config.layerCount("num_hidden_layers"), rotary),
    queryKeyValueBias: true,
  });
}
