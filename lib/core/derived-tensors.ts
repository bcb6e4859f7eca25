const derived =
  /(^|\.)(rotary_emb\.inv_freq|h\.\d+\.attn\.(bias|masked_bias)|embeddings\.(position_ids|token_type_ids))$/;

/**
 * Whether a tensor of a checkpoint is no parameter: rotary frequencies, causal masks and position
 * numbers, which older versions of transformers stored, follow from the configuration.
 */
export const isDerivedTensor = (name: string): boolean => derived.test(name);
