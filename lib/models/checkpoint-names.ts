/** Whether `tie_word_embeddings` is on, with the default of the model type. */
export function isTied(modelConfig: Readonly<Record<string, unknown>>): boolean {
  const value = modelConfig["tie_word_embeddings"];
  if (typeof value === "boolean") return value;
  return ["gpt2", "gemma2", "gemma3_text"].includes(String(modelConfig["model_type"]));
}
