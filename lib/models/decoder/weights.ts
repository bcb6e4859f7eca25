import type { WeightSpec } from "#lib/models/model";
import type { DecoderConfig } from "./config.js";
import { basePrefix, tokenEmbedding } from "./facts.js";

export const finalNormName = `${basePrefix}norm.weight`;

/** Names of one layer's modules, as Hugging Face writes them. */
export function layerModules(layer: number) {
  const prefix = `${basePrefix}layers.${layer}`;
  return {
    attentionNorm: `${prefix}.input_layernorm`,
    query: `${prefix}.self_attn.q_proj`,
    key: `${prefix}.self_attn.k_proj`,
    value: `${prefix}.self_attn.v_proj`,
    queryKeyValue: `${prefix}.self_attn.qkv_proj`,
    queryNorm: `${prefix}.self_attn.q_norm`,
    keyNorm: `${prefix}.self_attn.k_norm`,
    output: `${prefix}.self_attn.o_proj`,
    /** The norm before the feed-forward part; with sandwich norms the one behind attention. */
    postAttentionNorm: `${prefix}.post_attention_layernorm`,
    preMlpNorm: `${prefix}.pre_feedforward_layernorm`,
    postMlpNorm: `${prefix}.post_feedforward_layernorm`,
    gate: `${prefix}.mlp.gate_proj`,
    up: `${prefix}.mlp.up_proj`,
    gateUp: `${prefix}.mlp.gate_up_proj`,
    down: `${prefix}.mlp.down_proj`,
  } as const;
}

export type LayerModules = ReturnType<typeof layerModules>;

/** The weights of the base model; projections are [out, in]. */
export function decoderWeights(config: DecoderConfig): readonly WeightSpec[] {
  return [
    { name: tokenEmbedding, shape: [config.vocabSize, config.hiddenSize] },
    ...config.layers.flatMap((_, layer) => layerWeights(config, layerModules(layer))),
    { name: finalNormName, shape: [config.hiddenSize] },
  ];
}

function layerWeights(config: DecoderConfig, names: LayerModules): readonly WeightSpec[] {
  const { hiddenSize: d, intermediateSize: f, headDim: h } = config;
  const queries = config.numHeads * h;
  const keys = config.numKeyValueHeads * h;
  const norm = (module: string, width = d): WeightSpec => ({
    name: `${module}.weight`,
    shape: [width],
  });
  const projection = (module: string, out: number, width: number, bias: boolean): WeightSpec[] => [
    { name: `${module}.weight`, shape: [out, width] },
    ...(bias ? [{ name: `${module}.bias`, shape: [out] }] : []),
  ];
  return [
    norm(names.attentionNorm),
    ...(config.fusedProjections
      ? projection(names.queryKeyValue, queries + 2 * keys, d, config.queryKeyValueBias)
      : [
          ...projection(names.query, queries, d, config.queryKeyValueBias),
          ...projection(names.key, keys, d, config.queryKeyValueBias),
          ...projection(names.value, keys, d, config.queryKeyValueBias),
        ]),
    ...(config.queryKeyNorms ? [norm(names.queryNorm, h), norm(names.keyNorm, h)] : []),
    ...projection(names.output, d, queries, config.outputBias),
    norm(names.postAttentionNorm),
    ...(config.sandwichNorms ? [norm(names.preMlpNorm), norm(names.postMlpNorm)] : []),
    ...(config.fusedProjections
      ? projection(names.gateUp, 2 * f, d, config.mlpBias)
      : [
          ...projection(names.gate, f, d, config.mlpBias),
          ...projection(names.up, f, d, config.mlpBias),
        ]),
    ...projection(names.down, d, f, config.mlpBias),
  ];
}
