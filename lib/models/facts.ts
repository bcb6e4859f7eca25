import { bert } from "./bert/facts.js";
import { distilbert } from "./distilbert/facts.js";
import { gemma2 } from "./gemma2/facts.js";
import { gemma3 } from "./gemma3/facts.js";
import { gpt2 } from "./gpt2/facts.js";
import { llama } from "./llama/facts.js";
import { mistral } from "./mistral/facts.js";
import type { ModelFacts } from "./model-facts.js";
import { phi3 } from "./phi3/facts.js";
import { qwen2 } from "./qwen2/facts.js";
import { qwen3 } from "./qwen3/facts.js";
import { roberta } from "./roberta/facts.js";

type Json = Readonly<Record<string, unknown>>;

/** By `model_type` of config.json: the architectures that are here. */
export const modelFacts = {
  bert,
  distilbert,
  gemma2,
  gemma3_text: gemma3,
  gpt2,
  llama,
  mistral,
  phi3,
  qwen2,
  qwen3,
  roberta,
} as const satisfies Readonly<Record<string, ModelFacts>>;

export type ModelType = keyof typeof modelFacts;

/** @returns undefined for a type that is not here */
export const modelTypeOf = ({ model_type: name }: Json): ModelType | undefined =>
  typeof name === "string" && Object.hasOwn(modelFacts, name) ? (name as ModelType) : undefined;

/** @returns undefined for a type that is not here */
export function factsOf(modelConfig: Json): ModelFacts | undefined {
  const modelType = modelTypeOf(modelConfig);
  return modelType === undefined ? undefined : modelFacts[modelType];
}

const allFacts: readonly ModelFacts[] = Object.values(modelFacts);

/** Keys of config.json that may hold a model's positions; of a type that is not here, those of all. */
export const positionKeys = (modelConfig: Json): readonly string[] =>
  factsOf(modelConfig)?.keys.positions ?? [
    ...new Set(allFacts.flatMap(({ keys }) => keys.positions)),
  ];

/** Whether the model reads both sides of a token, so that it predicts no next one. */
export const isEncoder = (modelConfig: Json): boolean => factsOf(modelConfig)?.isEncoder === true;

/** Whether `tie_word_embeddings` is on, with the default of the model type. */
export function isTied(modelConfig: Json): boolean {
  const value = modelConfig["tie_word_embeddings"];
  return typeof value === "boolean" ? value : factsOf(modelConfig)?.tiesHead === true;
}

/**
 * The name that today's transformers gives to a stored weight, for files of earlier years: the hub's gpt2
 * has no `transformer.`, old BERT files call the norm's weight gamma, a bare encoder has no prefix.
 *
 * @param modelType `model_type` of config.json
 */
export function currentWeightName(stored: string, modelType: string | undefined): string {
  const name = stored
    .replace(/(^|\.)LayerNorm\.gamma$/, "$1LayerNorm.weight")
    .replace(/(^|\.)LayerNorm\.beta$/, "$1LayerNorm.bias");
  const facts = factsOf({ model_type: modelType });
  const isBare = facts?.baseParts.includes(name.split(".", 1)[0] ?? "") === true;
  return isBare ? `${facts.basePrefix}${name}` : name;
}

/** Last parts of the names of all tables of embeddings. */
const embeddingModules = new Set(allFacts.flatMap((facts) => facts.embeddingModules));

/**
 * Whether a weight is an embedding table, which transformers leaves out when it estimates a model's
 * operations (`num_parameters(exclude_embeddings=True)`).
 */
export function isEmbeddingTable(name: string): boolean {
  const [weight, module = ""] = name.split(".").toReversed();
  return weight === "weight" && embeddingModules.has(module);
}

/** The embedding table that a model's head may be tied to, among its weights. */
export function tiedEmbeddingName(names: readonly string[]): string | undefined {
  const tables = allFacts
    .filter(({ isEncoder: reads }) => !reads)
    .flatMap(({ tokenEmbedding, basePrefix }) => [
      tokenEmbedding,
      tokenEmbedding.slice(basePrefix.length),
    ]);
  return tables.find((name) => names.includes(name));
}

/** What adapters ask of a model; of a type that is not here, what holds without knowing it. */
export function adapterFacts(
  modelConfig: Json,
): Pick<ModelFacts, "modelType" | "adapterTargets" | "embeddingModules"> &
  Partial<
    Pick<
      ModelFacts,
      | "inputMajorPrefix"
      | "tokenEmbedding"
      | "scalesTokens"
      | "basePrefix"
      | "className"
      | "bottlenecks"
    >
  > {
  return (
    factsOf(modelConfig) ?? {
      modelType: String(modelConfig["model_type"]),
      adapterTargets: [],
      embeddingModules: [...embeddingModules],
    }
  );
}
