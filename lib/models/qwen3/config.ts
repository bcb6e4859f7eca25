import { ConfigReader } from "#lib/models/config-reader";
import { type DecoderConfig, parseDecoderBase, qwenLayers } from "#lib/models/decoder/config";
import { parseRotary } from "#lib/models/rotary-config";

/** Reads a Qwen3 config.json: norms over the heads of queries and keys. */
export function parseQwen3Config(json: Readonly<Record<string, unknown>>): DecoderConfig {
  const config = new ConfigReader("qwen3", json);
  const base = parseDecoderBase(config, {
    modelType: "qwen3",
    maxPositions: 32_768,
    numKeyValueHeads: 32,
    headDim: 128,
  });
  const rotary = parseRotary("qwen3", config, { ...base, theta: 10_000 });
  const attentionBias = config.boolean("attention_bias", false);
  return Object.freeze({
    ...base,
    layers: qwenLayers(config, config.layerCount("num_hidden_layers"), rotary),
    queryKeyNorms: true,
    queryKeyValueBias: attentionBias,
    outputBias: attentionBias,
  });
}
