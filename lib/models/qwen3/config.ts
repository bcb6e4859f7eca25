import { ConfigReader } from "#lib/models/config-reader";
import { type DecoderConfig, parseDecoderBase, qwenLayers } from "#lib/models/decoder/config";
import { parseRotary } from "#lib/models/rotary-config";
import { qwen3 } from "./facts.js";

/** Reads a Qwen3 config.json: norms over the heads of queries and keys. */
export function parseQwen3Config(json: Readonly<Record<string, unknown>>): DecoderConfig {
  const config = new ConfigReader(qwen3.modelType, json);
  const base = parseDecoderBase(config, qwen3, {
    numKeyValueHeads: 32,
    headDim: 128,
  });
  const rotary = parseRotary(qwen3.modelType, config, { ...base, theta: 10_000 });
  const attentionBias = config.boolean("attention_bias", false);
  return Object.freeze({
    ...base,
    layers: qwenLayers(config, config.layerCount("num_hidden_layers"), rotary),
    queryKeyNorms: true,
    queryKeyValueBias: attentionBias,
    outputBias: attentionBias,
  });
}
