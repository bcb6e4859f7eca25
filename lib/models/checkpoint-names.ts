/**
 * Names of tensors in checkpoints, without tfjs: what prepares a run reads them too.
 *
 * Some tensors of a checkpoint are no parameters: rotary frequencies, causal masks and position
 * numbers that older versions of transformers stored.
 */
export const isDerivedTensor = (name: string): boolean =>
  name.endsWith("rotary_emb.inv_freq") ||
  /(^|\.)h\.\d+\.attn\.(bias|masked_bias)$/.test(name) ||
  /(^|\.)embeddings\.(position_ids|token_type_ids)$/.test(name);

/** Whether `tie_word_embeddings` is on, with the default of the model type. */
export function isTied(modelConfig: Readonly<Record<string, unknown>>): boolean {
  const value = modelConfig["tie_word_embeddings"];
  if (typeof value === "boolean") return value;
  return ["gpt2", "gemma2", "gemma3_text"].includes(String(modelConfig["model_type"]));
}
