import type { FloatDtype } from "#lib/core/dtype";
import { formatPythonJson } from "#lib/checkpoint/python-json";
import type { LlamaHyperparameters } from "./llama.js";
import type { SpecialTokenIds } from "./tokenizer.js";

const floatKeys = new Set([
  "attention_dropout",
  "factor",
  "high_freq_factor",
  "initializer_range",
  "low_freq_factor",
  "rms_norm_eps",
  "rope_theta",
]);

const toText = (value: unknown): string =>
  `${formatPythonJson(value, (key) => !floatKeys.has(key))}\n`;

/**
 * config.json of a LlamaForCausalLM. transformers v5 reads `rope_parameters` and `dtype`, v4
 * `rope_theta`, `rope_scaling` and `torch_dtype`; both ignore the other's names.
 */
export function llamaConfigText(
  h: LlamaHyperparameters,
  ids: SpecialTokenIds,
  dtype: FloatDtype,
): string {
  return toText({
    architectures: ["LlamaForCausalLM"],
    attention_bias: h.hasAttentionBias,
    attention_dropout: 0,
    bos_token_id: ids.bos,
    dtype,
    eos_token_id: ids.eos,
    head_dim: h.headDim,
    hidden_act: "silu",
    hidden_size: h.hiddenSize,
    initializer_range: 0.02,
    intermediate_size: h.intermediateSize,
    max_position_embeddings: h.maxPositions,
    mlp_bias: h.hasMlpBias,
    model_type: "llama",
    num_attention_heads: h.numHeads,
    num_hidden_layers: h.numLayers,
    num_key_value_heads: h.numKeyValueHeads,
    pad_token_id: ids.pad,
    pretraining_tp: 1,
    rms_norm_eps: h.rmsNormEpsilon,
    rope_parameters: { rope_type: "default", ...h.ropeScaling, rope_theta: h.ropeTheta },
    rope_scaling: h.ropeScaling ?? null,
    rope_theta: h.ropeTheta,
    tie_word_embeddings: h.isTied,
    torch_dtype: dtype,
    use_cache: true,
    vocab_size: h.vocabSize,
  });
}

export function generationConfigText(ids: SpecialTokenIds): string {
  return toText({
    _from_model_config: true,
    bos_token_id: ids.bos,
    eos_token_id: ids.eos,
    pad_token_id: ids.pad,
    use_cache: true,
  });
}
