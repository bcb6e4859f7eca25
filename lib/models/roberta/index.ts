import * as tf from "@tensorflow/tfjs-core";
import { ConfigReader } from "#lib/models/config-reader";
import { bertHiddenStates, bertWeights, parseBertConfig } from "#lib/models/encoder/bert";
import { encoderModel } from "#lib/models/encoder/index";
import { linearWeights } from "#lib/models/encoder/weights";
import { dropped, firstTokens, linear } from "#lib/models/layers";
import type { CreateModel } from "#lib/models/model";
import { roberta } from "./facts.js";

const [dense] = roberta.classifier.dense as [string];
const { output } = roberta.classifier;

export const createRoberta: CreateModel = (json, task) => {
  const config = parseBertConfig(roberta, json, { vocabSize: 50_265 });
  const { hiddenSize: d } = config;
  const padTokenId = new ConfigReader(roberta.modelType, json).nonNegativeInt(
    "pad_token_id",
    roberta.defaults.padTokenId ?? 0,
  );
  return encoderModel(json, task, {
    base: {
      modelType: roberta.modelType,
      vocabSize: config.vocabSize,
      maxPositions: config.numPositions - padTokenId - 1,
      weights: bertWeights(config),
      basePrefix: roberta.basePrefix,
      hiddenStates: (weights, inputs) =>
        bertHiddenStates(config, weights, inputs, {
          // Rows start behind the padding's own; the caller's positions start at 0.
          ids: inputs.positions ?? positionsOf(inputs.tokens, padTokenId),
          offset: padTokenId + 1,
          paddingRow: padTokenId,
        }),
    },
    classifierWeights: (numLabels) => [
      ...linearWeights(dense, d, d),
      ...linearWeights(output, numLabels, d),
    ],
    classify: (weights, hidden_BTD, dropout) => {
      const keep = (x: tf.Tensor): tf.Tensor => dropped(dropout, "classifier", x);
      const first_BD = tf.tanh(linear(weights, dense, keep(firstTokens(hidden_BTD)), true));
      return linear(weights, output, keep(first_BD), true) as tf.Tensor2D;
    },
  });
};

/** Counts tokens that are not padding, from 0; padding is at -1: the row before the offset. */
function positionsOf(tokens_BT: tf.Tensor2D, padTokenId: number): tf.Tensor2D {
  const isReal_BT = tf.cast(tf.notEqual(tokens_BT, tf.scalar(padTokenId, "int32")), "int32");
  const count_BT = tf.mul(tf.cumsum(isReal_BT, 1), isReal_BT);
  return tf.sub(count_BT, tf.scalar(1, "int32"));
}
