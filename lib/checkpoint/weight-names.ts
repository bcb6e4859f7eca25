import { isDerivedTensor } from "#lib/core/derived-tensors";

/**
 * The names that today's transformers gives to weights, for files of earlier years: the hub's gpt2 has
 * no `transformer.`, old BERT files call the norm's weight gamma, a bare encoder has no prefix.
 */

interface Family {
  /** The backbone inside a model with a head. */
  readonly prefix: string;
  /** First parts of names of the backbone's own weights. */
  readonly parts: readonly string[];
}

const decoder: Family = { prefix: "model", parts: ["embed_tokens", "layers", "norm"] };
const encoder = (prefix: string): Family => ({
  prefix,
  parts: ["embeddings", "encoder", "pooler"],
});

/** By `model_type` of config.json. */
const families: Readonly<Record<string, Family>> = {
  gpt2: { prefix: "transformer", parts: ["wte", "wpe", "h", "ln_f"] },
  llama: decoder,
  mistral: decoder,
  qwen2: decoder,
  qwen3: decoder,
  gemma: decoder,
  gemma2: decoder,
  gemma3_text: decoder,
  phi3: decoder,
  bert: encoder("bert"),
  roberta: encoder("roberta"),
  distilbert: { prefix: "distilbert", parts: ["embeddings", "transformer"] },
};

/**
 * The name under which transformers knows a stored tensor now; undefined for a buffer that is no
 * weight.
 *
 * @param modelType `model_type` of config.json
 */
export function currentWeightName(
  stored: string,
  modelType: string | undefined,
): string | undefined {
  if (isDerivedTensor(stored)) return undefined;
  const name = stored
    .replace(/(^|\.)LayerNorm\.gamma$/, "$1LayerNorm.weight")
    .replace(/(^|\.)LayerNorm\.beta$/, "$1LayerNorm.bias");
  const family =
    modelType !== undefined && Object.hasOwn(families, modelType) ? families[modelType] : undefined;
  if (family === undefined || !family.parts.includes(name.split(".", 1)[0] ?? "")) return name;
  return `${family.prefix}.${name}`;
}

/**
 * Whether a weight is an embedding table, which transformers leaves out when it estimates a model's
 * operations (`num_parameters(exclude_embeddings=True)`).
 */
export function isEmbeddingTable(name: string): boolean {
  return /(^|\.)(embed_tokens|wte|wpe|(word|position|token_type)_embeddings)\.weight$/.test(name);
}
