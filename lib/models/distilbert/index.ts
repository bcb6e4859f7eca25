import { encoderModel } from "#lib/models/encoder/index";
import type { CreateModel } from "#lib/models/model";
import { parseDistilBertConfig } from "./config.js";
import { distilBertClassify, distilBertHiddenStates } from "./forward.js";
import { distilbert } from "./facts.js";
import { classifierWeights, distilBertWeights } from "./weights.js";

export const createDistilBert: CreateModel = (json, task) => {
  const config = parseDistilBertConfig(json);
  return encoderModel(json, task, {
    base: {
      modelType: distilbert.modelType,
      vocabSize: config.vocabSize,
      maxPositions: config.maxPositions,
      weights: distilBertWeights(config),
      basePrefix: distilbert.basePrefix,
      hiddenStates: (weights, inputs) => distilBertHiddenStates(config, weights, inputs),
    },
    classifierWeights: (numLabels) => classifierWeights(config, numLabels),
    classify: distilBertClassify,
  });
};
