import type { DecoderConfig } from "#lib/models/decoder/config";
import { type ModelType, modelTypeOf } from "#lib/models/facts";
import { parseGemma2Config } from "#lib/models/gemma2/config";
import { parseGemma3Config } from "#lib/models/gemma3/config";
import { parseGpt2Config } from "#lib/models/gpt2/config";
import { parseLlamaConfig } from "#lib/models/llama/config";
import { parseMistralConfig } from "#lib/models/mistral/config";
import { parsePhi3Config } from "#lib/models/phi3/config";
import { parseQwen2Config } from "#lib/models/qwen2/config";
import { parseQwen3Config } from "#lib/models/qwen3/config";
import { decoderInLlamaCpp } from "./decoder.js";
import { gpt2InLlamaCpp } from "./gpt2.js";
import type { LlamaCppModel, Refuse } from "./kind.js";

export type { LlamaCppTensor, TensorForm } from "./kind.js";

type Json = Readonly<Record<string, unknown>>;

const decoders: Partial<Record<ModelType, (json: Json) => DecoderConfig>> = {
  llama: parseLlamaConfig,
  mistral: parseMistralConfig,
  qwen2: parseQwen2Config,
  qwen3: parseQwen3Config,
  gemma2: parseGemma2Config,
  gemma3_text: parseGemma3Config,
  phi3: parsePhi3Config,
};

/**
 * The model of a config.json in the words of llama.cpp: metadata, names and forms of its tensors.
 *
 * @param refuse throws with what llama.cpp does not compute
 * @throws E_MODEL_UNSUPPORTED, E_MODEL_CONFIG
 */
export function modelInLlamaCpp(json: Json, refuse: Refuse): LlamaCppModel {
  const modelType = modelTypeOf(json);
  if (modelType === "gpt2") return gpt2InLlamaCpp(parseGpt2Config(json), refuse);
  const parse = modelType === undefined ? undefined : decoders[modelType];
  if (parse === undefined) {
    const known = ["gpt2", ...Object.keys(decoders)].sort().join(", ");
    return refuse(
      `it is of model_type ${JSON.stringify(json["model_type"])}; ${known} are written`,
    );
  }
  return decoderInLlamaCpp(parse(json), refuse);
}
