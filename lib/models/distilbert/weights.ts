import { layerWeights, linearWeights, normWeights } from "#lib/models/encoder/weights";
import type { WeightSpec } from "#lib/models/model";
import type { DistilBertConfig } from "./config.js";
import { distilbert } from "./facts.js";

const { basePrefix, tokenEmbedding } = distilbert;
export const positions = `${basePrefix}embeddings.position_embeddings.weight`;
export const embeddingNorm = `${basePrefix}embeddings.LayerNorm`;
export const [preClassifier] = distilbert.classifier.dense as [string];
export const classifier = distilbert.classifier.output;

/** The weights of the base model. */
export const distilBertWeights = (config: DistilBertConfig): readonly WeightSpec[] => [
  { name: tokenEmbedding, shape: [config.vocabSize, config.hiddenSize] },
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
