import type { WeightSpec } from "#lib/models/model";
import type { Gpt2Config } from "./config.js";

export const basePrefix = "transformer.";
export const embeddingName = "transformer.wte.weight";
export const positionsName = "transformer.wpe.weight";
export const finalNorm = "transformer.ln_f";
export const head = "lm_head.weight";
export const score = "score.weight";

/** Names of one layer's modules; projections are Conv1D, stored [in, out]. */
export function layerModules(layer: number) {
  const prefix = `transformer.h.${layer}`;
  return {
    attentionNorm: `${prefix}.ln_1`,
    queryKeyValue: `${prefix}.attn.c_attn`,
    output: `${prefix}.attn.c_proj`,
    mlpNorm: `${prefix}.ln_2`,
    up: `${prefix}.mlp.c_fc`,
    down: `${prefix}.mlp.c_proj`,
  } as const;
}

export type LayerModules = ReturnType<typeof layerModules>;

/** The weights of the base model. */
export function gpt2Weights(config: Gpt2Config): readonly WeightSpec[] {
  const { hiddenSize: d, intermediateSize: f } = config;
  const norm = (module: string): WeightSpec[] => [
    { name: `${module}.weight`, shape: [d] },
    { name: `${module}.bias`, shape: [d] },
  ];
  const conv1d = (module: string, width: number, out: number): WeightSpec[] => [
    { name: `${module}.weight`, shape: [width, out], isInputMajor: true },
    { name: `${module}.bias`, shape: [out] },
  ];
  return [
    { name: embeddingName, shape: [config.vocabSize, d] },
    { name: positionsName, shape: [config.maxPositions, d] },
    ...Array.from({ length: config.numLayers }, (_, layer) => {
      const names = layerModules(layer);
      return [
        ...norm(names.attentionNorm),
        ...conv1d(names.queryKeyValue, d, 3 * d),
        ...conv1d(names.output, d, d),
        ...norm(names.mlpNorm),
        ...conv1d(names.up, d, f),
        ...conv1d(names.down, f, d),
      ];
    }).flat(),
    ...norm(finalNorm),
  ];
}
