import { layerWeights, linearWeights, normWeights } from "#lib/models/encoder/weights";
import type { WeightSpec } from "#lib/models/model";
import type { DistilBertConfig } from "./config.js";

export const basePrefix = "distilbert.";
export const words = "distilbert.embeddings.word_embeddings.weight";
export const positions = "distilbert.embeddings.position_embeddings.weight";
export const embeddingNorm = "distilbert.embeddings.LayerNorm";
export const preClassifier = "pre_classifier";
export const classifier = "classifier";

/** The weights of the base model. */
export const distilBertWeights = (config: DistilBertConfig): readonly WeightSpec[] => [
  { name: words, shape: [config.vocabSize, config.hiddenSize] },
  { name: positions, shape: [config.maxPositions, config.hiddenSize] },
  ...normWeights(embeddingNorm, config.hiddenSize),
  ...layerWeights(config),
];

export const classifierWeights = (
  config: DistilBertConfig,
  numLabels: number,
): readonly WeightSpec[] => [
  ...linearWeights(preClassifier, config.hiddenSize, config.hiddenSize),
  ...linearWeights(classifier, numLabels, config.hiddenSize),
];
