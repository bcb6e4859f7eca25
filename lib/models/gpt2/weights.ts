import type { WeightSpec } from "#lib/models/model";
import type { Gpt2Config } from "./config.js";
import { gpt2 } from "./facts.js";

const { basePrefix } = gpt2;
export const positionsName = `${basePrefix}wpe.weight`;
export const finalNorm = `${basePrefix}ln_f`;
export const head = "lm_head.weight";

/** Names of one layer's modules; projections are Conv1D, stored [in, out]. */
export function layerModules(layer: number) {
  const prefix = `${basePrefix}h.${layer}`;
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
    { name: gpt2.tokenEmbedding, shape: [config.vocabSize, d] },
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
