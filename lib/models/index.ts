import { LockstepError } from "#lib/core/errors/index";
import { createBert } from "./bert/index.js";
import { createDistilBert } from "./distilbert/index.js";
import { isEncoder, modelFacts, type ModelType, modelTypeOf } from "./facts.js";
import { createGemma2 } from "./gemma2/index.js";
import { createGemma3 } from "./gemma3/index.js";
import { createGpt2 } from "./gpt2/index.js";
import { createLlama } from "./llama/index.js";
import { createMistral } from "./mistral/index.js";
import type { CausalLanguageModel, CreateModel, Model, SequenceClassifier, Task } from "./model.js";
import { createPhi3 } from "./phi3/index.js";
import { createQwen2 } from "./qwen2/index.js";
import { createQwen3 } from "./qwen3/index.js";
import { createRoberta } from "./roberta/index.js";

export type {
  Adapter,
  CausalLanguageModel,
  Dropout,
  LayerPart,
  Model,
  ModelInputs,
  SequenceClassifier,
  Sublayer,
  Task,
  Weights,
  WeightSpec,
} from "./model.js";
export { checkPositions } from "./positions.js";
export { resolveWeights } from "./resolve-weights.js";

const architectures: Readonly<Record<ModelType, CreateModel>> = {
  bert: createBert,
  distilbert: createDistilBert,
  gemma2: createGemma2,
  gemma3_text: createGemma3,
  gpt2: createGpt2,
  llama: createLlama,
  mistral: createMistral,
  phi3: createPhi3,
  qwen2: createQwen2,
  qwen3: createQwen3,
  roberta: createRoberta,
};

export const supportedModelTypes: readonly string[] = Object.keys(modelFacts);

type Json = Readonly<Record<string, unknown>>;

/**
 * Makes the model that a config.json describes.
 *
 * @param options.task what the model is for; absent: what the class in `architectures` is for
 * @throws E_MODEL_UNSUPPORTED for an architecture, head or option whose arithmetic is not here
 */
export function createModel(
  json: Json,
  options: { readonly task: "causal-lm" },
): CausalLanguageModel;
export function createModel(
  json: Json,
  options: { readonly task: "sequence-classification" },
): SequenceClassifier;
export function createModel(json: Json, options?: { readonly task?: Task }): Model;
export function createModel(json: Json, options: { readonly task?: Task } = {}): Model {
  const modelType = modelTypeOf(json);
  if (modelType === undefined) {
    throw new LockstepError("E_MODEL_UNSUPPORTED", {
      what: `model_type ${JSON.stringify(json["model_type"])} (supported: ${supportedModelTypes.join(", ")})`,
    });
  }
  const quantization = json["quantization_config"];
  if (quantization !== undefined && quantization !== null) {
    throw new LockstepError("E_MODEL_UNSUPPORTED", { what: "quantization_config" });
  }
  return architectures[modelType](json, options.task ?? taskOf(json));
}

/** What the class that wrote the checkpoint is for. */
function taskOf(json: Json): Task {
  const list = json["architectures"];
  const name: unknown = Array.isArray(list) ? list[0] : undefined;
  const base: Task = isEncoder(json) ? "feature-extraction" : "causal-lm";
  if (typeof name !== "string") return base;
  if (name.endsWith("ForCausalLM") || name.endsWith("LMHeadModel")) return "causal-lm";
  if (name.endsWith("ForSequenceClassification")) return "sequence-classification";
  // A masked language model is an encoder with a head that is not used here.
  if (/(Model|ForMaskedLM|ForPreTraining)$/.test(name)) return "feature-extraction";
  throw new LockstepError("E_MODEL_UNSUPPORTED", { what: `The head of ${name}` });
}
