import * as tf from "@tensorflow/tfjs-core";
import { bertHiddenStates, bertWeights, parseBertConfig } from "#lib/models/encoder/bert";
import { encoderModel } from "#lib/models/encoder/index";
import { linearWeights } from "#lib/models/encoder/weights";
import { dropped, firstTokens, linear } from "#lib/models/layers";
import type { CreateModel } from "#lib/models/model";
import { bert } from "./facts.js";

const [pooler] = bert.classifier.dense as [string];
const classifier = bert.classifier.output;

export const createBert: CreateModel = (json, task) => {
  const config = parseBertConfig(bert, json, { vocabSize: 30_522 });
  const { hiddenSize: d } = config;
  return encoderModel(json, task, {
    base: {
      modelType: bert.modelType,
      vocabSize: config.vocabSize,
      maxPositions: config.numPositions,
      weights: bertWeights(config),
      basePrefix: bert.basePrefix,
      hiddenStates: (weights, inputs) =>
        bertHiddenStates(config, weights, inputs, {
          ids: inputs.positions,
          offset: 0,
          paddingRow: null,
        }),
    },
    classifierWeights: (numLabels) => [
      ...linearWeights(pooler, d, d),
      ...linearWeights(classifier, numLabels, d),
    ],
    classify: (weights, hidden_BTD, dropout) => {
      const pooled_BD = tf.tanh(linear(weights, pooler, firstTokens(hidden_BTD), true));
      const kept_BD = dropped(dropout, "classifier", pooled_BD);
      return linear(weights, classifier, kept_BD, true) as tf.Tensor2D;
    },
  });
};
