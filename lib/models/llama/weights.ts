import type { WeightSpec } from "#lib/models/model";
import type { LlamaConfig } from "./config.js";

export const embedding = "model.embed_tokens.weight";
export const finalNorm = "model.norm.weight";
export const head = "lm_head.weight";

/** Names of one layer's weights, as Hugging Face writes them; projections are [out, in]. */
export function layerNames(layer: number) {
  const prefix = `model.layers.${layer}`;
  return {
    attentionNorm: `${prefix}.input_layernorm.weight`,
    query: `${prefix}.self_attn.q_proj.weight`,
    key: `${prefix}.self_attn.k_proj.weight`,
    value: `${prefix}.self_attn.v_proj.weight`,
    output: `${prefix}.self_attn.o_proj.weight`,
    mlpNorm: `${prefix}.post_attention_layernorm.weight`,
    gate: `${prefix}.mlp.gate_proj.weight`,
    up: `${prefix}.mlp.up_proj.weight`,
    down: `${prefix}.mlp.down_proj.weight`,
  } as const;
}

export function llamaWeights(config: LlamaConfig): readonly WeightSpec[] {
  const { hiddenSize: d, intermediateSize: f } = config;
  const queries = config.numHeads * config.headDim;
  const keys = config.numKeyValueHeads * config.headDim;
  const layers = Array.from({ length: config.numLayers }, (_, layer): WeightSpec[] => {
    const names = layerNames(layer);
    return [
      { name: names.attentionNorm, shape: [d] },
      { name: names.query, shape: [queries, d] },
      { name: names.key, shape: [keys, d] },
      { name: names.value, shape: [keys, d] },
      { name: names.output, shape: [d, queries] },
      { name: names.mlpNorm, shape: [d] },
      { name: names.gate, shape: [f, d] },
      { name: names.up, shape: [f, d] },
      { name: names.down, shape: [d, f] },
    ];
  });
  return [
    { name: embedding, shape: [config.vocabSize, d] },
    ...layers.flat(),
    { name: finalNorm, shape: [d] },
    ...(config.tieWordEmbeddings ? [] : [{ name: head, shape: [config.vocabSize, d] }]),
  ];
}
