import type * as tf from "@tensorflow/tfjs-core";
import type { CausalLanguageModel } from "#lib/models/model";
import { parseLlamaConfig } from "./config.js";
import { llamaHiddenStates } from "./forward.js";
import { embedding, head, llamaWeights } from "./weights.js";

export function createLlama(json: Readonly<Record<string, unknown>>): CausalLanguageModel {
  const config = parseLlamaConfig(json);
  return Object.freeze({
    modelType: "llama",
    vocabSize: config.vocabSize,
    maxPositions: config.maxPositions,
    weights: llamaWeights(config),
    hiddenStates: (weights, tokens_BT) => llamaHiddenStates(config, weights, tokens_BT),
    outputProjection: (weights) =>
      weights(config.tieWordEmbeddings ? embedding : head) as tf.Tensor2D,
  } satisfies CausalLanguageModel);
}
