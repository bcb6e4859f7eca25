import { ConfigReader } from "#lib/models/config-reader";
import { type DecoderConfig, parseDecoderBase } from "#lib/models/decoder/config";
import { parseRotary } from "#lib/models/rotary-config";

/** Reads a Phi-3 config.json: fused projections, and a part of each head that turns. */
export function parsePhi3Config(json: Readonly<Record<string, unknown>>): DecoderConfig {
  const config = new ConfigReader("phi3", json);
  const base = parseDecoderBase(config, {
    modelType: "phi3",
    maxPositions: 4096,
    normEpsilon: 1e-5,
    padTokenId: 32_000,
    dropoutKeys: ["resid_pdrop", "embd_pdrop"],
  });
  const rotary = parseRotary("phi3", config, {
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
