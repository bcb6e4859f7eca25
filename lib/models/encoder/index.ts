import type * as tf from "@tensorflow/tfjs-core";
import { ConfigReader } from "#lib/models/config-reader";
import { parseLabels } from "#lib/models/heads";
import type { Dropout, Model, ModelBase, Task, WeightSpec, Weights } from "#lib/models/model";

interface EncoderParts {
  readonly base: ModelBase;
  readonly classifierWeights: (numLabels: number) => readonly WeightSpec[];
  /** float [B, L] from the hidden states [B, T, D]. */
  readonly classify: (
    weights: Weights,
    hidden_BTD: tf.Tensor3D,
    dropout: Dropout | undefined,
  ) => tf.Tensor2D;
}

/** An encoder with the head of the task. */
export function encoderModel(
  json: Readonly<Record<string, unknown>>,
  task: Task,
  { base, classifierWeights, classify }: EncoderParts,
): Model {
  const config = new ConfigReader(base.modelType, json);
  switch (task) {
    case "causal-lm":
      return config.unsupported("a causal language model of an encoder");
    case "sequence-classification": {
      const labels = parseLabels(config);
      return Object.freeze({
        ...base,
        task,
        ...labels,
        weights: [...base.weights, ...classifierWeights(labels.numLabels)],
        logits: (weights, { dropout }, hidden_BTD) => classify(weights, hidden_BTD, dropout),
      } satisfies Model);
    }
    case "feature-extraction":
      return Object.freeze({ ...base, task } satisfies Model);
  }
}
