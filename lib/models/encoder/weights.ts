import type { WeightSpec } from "#lib/models/model";
import type { EncoderConfig } from "./forward.js";

export const normWeights = (module: string, width: number): readonly WeightSpec[] => [
  { name: `${module}.weight`, shape: [width] },
  { name: `${module}.bias`, shape: [width] },
];

export const linearWeights = (
  module: string,
  out: number,
  width: number,
): readonly WeightSpec[] => [
  { name: `${module}.weight`, shape: [out, width] },
  { name: `${module}.bias`, shape: [out] },
];

export function layerWeights(config: EncoderConfig): readonly WeightSpec[] {
  const { hiddenSize: d, intermediateSize: f } = config;
  return config.layers.flatMap((names) => [
    ...linearWeights(names.query, d, d),
    ...linearWeights(names.key, d, d),
    ...linearWeights(names.value, d, d),
    ...linearWeights(names.output, d, d),
    ...normWeights(names.attentionNorm, d),
    ...linearWeights(names.up, f, d),
    ...linearWeights(names.down, d, f),
    ...normWeights(names.mlpNorm, d),
  ]);
}
