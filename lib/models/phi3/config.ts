import { ConfigReader } from "#lib/models/config-reader";
import { type DecoderConfig, parseDecoderBase } from "#lib/models/decoder/config";
import { parseRotary } from "#lib/models/rotary-config";
import { phi3 } from "./facts.js";

/** Reads a Phi-3 config.json: fused projections, and a part of each head that turns. */
export function parsePhi3Config(json: Readonly<Record<string, unknown>>): DecoderConfig {
  const config = new ConfigReader(phi3.modelType, json);
  const base = parseDecoderBase(config, phi3, { normEpsilon: 1e-5 });
  const rotary = parseRotary(phi3.modelType, config, {
    ...base,
    theta: 10_000,
    partial: true,
    originalMaxPositions: 4096,
    aliases: { su: "longrope", yarn: "longrope" },
  });
  if (rotary.type !== "default" && rotary.type !== "longrope") {
    config.unsupported(`rope_type = ${JSON.stringify(rotary.type)}`);
  }
  const window = config.nullableInt("sliding_window", null);
  const numLayers = config.layerCount("num_hidden_layers");
  return Object.freeze({
    ...base,
    layers: Array.from({ length: numLayers }, () => ({ window, rotary })),
    fusedProjections: true,
  });
}
