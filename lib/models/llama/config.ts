import { ConfigReader } from "#lib/models/config-reader";
import { type DecoderConfig, parseDecoderBase } from "#lib/models/decoder/config";
import { parseRotary } from "#lib/models/rotary-config";
import { llama } from "./facts.js";

/** Reads a Llama config.json of either generation; what would change the arithmetic is refused. */
export function parseLlamaConfig(json: Readonly<Record<string, unknown>>): DecoderConfig {
  const config = new ConfigReader(llama.modelType, json);
  config.only("pretraining_tp", 1);
  const base = parseDecoderBase(config, llama);
  const rotary = parseRotary(llama.modelType, config, { ...base, theta: 10_000 });
  const attentionBias = config.boolean("attention_bias", false);
  return Object.freeze({
    ...base,
    layers: Array.from({ length: config.layerCount("num_hidden_layers") }, () => ({
      window: null,
      rotary,
    })),
    queryKeyValueBias: attentionBias,
    outputBias: attentionBias,
    mlpBias: config.boolean("mlp_bias", false),
  });
}
