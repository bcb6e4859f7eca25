// Shape legend: B batch, T tokens, D model width, L labels.
import * as tf from "@tensorflow/tfjs-core";
import { LockstepError } from "#lib/core/errors/index";
import { ConfigReader } from "./config-reader.js";
import { rowsAt } from "./layers.js";
import type {
  Model,
  ModelBase,
  ModelInputs,
  ProblemType,
  SequenceClassifier,
  Task,
  Weights,
} from "./model.js";

type LabelConfig = Pick<SequenceClassifier, "numLabels" | "problemType">;

const problemTypes: readonly ProblemType[] = [
  "single_label_classification",
  "multi_label_classification",
  "regression",
];

/** The number of labels is `num_labels`, or the size of `id2label`, or 2, as transformers has it. */
export function parseLabels(config: ConfigReader): LabelConfig {
  const named = Object.keys(config.record("id2label") ?? {}).length;
  const problem = config.isSet("problem_type") ? config.string("problem_type", "") : undefined;
  const problemType = problemTypes.find((known) => known === problem);
  if (problem !== undefined && problemType === undefined) {
    config.refuse("problem_type", `one of ${problemTypes.join(", ")}`);
  }
  return {
    numLabels: config.positiveInt("num_labels", named === 0 ? 2 : named),
    problemType,
  };
}

interface DecoderHead {
  readonly hiddenSize: number;
  /** The output projection [V, D]: a tied head is a weight of the base model. */
  readonly projectionName: string;
  readonly logitSoftcap: number | null;
  /** The classifier's projection, [L, D]. */
  readonly scoreName: string;
  /** `pad_token_id`, by which a classifier finds the last token. */
  readonly padTokenId: number | null;
  readonly config: ConfigReader;
}

/** A decoder with the head of the task. */
export function decoderModel(base: ModelBase, task: Task, head: DecoderHead): Model {
  const name = head.projectionName;
  switch (task) {
    case "causal-lm": {
      const isTied = base.weights.some((weight) => weight.name === name);
      const projection = { name, shape: [base.vocabSize, head.hiddenSize] };
      return Object.freeze({
        ...base,
        task,
        weights: isTied ? base.weights : [...base.weights, projection],
        logitSoftcap: head.logitSoftcap,
        outputProjection: (weights) => weights(name) as tf.Tensor2D,
      } satisfies Model);
    }
    case "sequence-classification": {
      const labels = parseLabels(head.config);
      const score = { name: head.scoreName, shape: [labels.numLabels, head.hiddenSize] };
      return Object.freeze({
        ...base,
        task,
        ...labels,
        padTokenId: head.padTokenId,
        weights: [...base.weights, score],
        logits: lastTokenClassifier(base.modelType, head.scoreName, head.padTokenId),
      } satisfies Model);
    }
    case "feature-extraction":
      return Object.freeze({ ...base, task } satisfies Model);
  }
}

/**
 * Logits of a row at its last token that is not padding: the head of decoders.
 *
 * @param padTokenId null: rows have no padding, which transformers accepts for one row only
 */
function lastTokenClassifier(
  model: string,
  scoreName: string,
  padTokenId: number | null,
): SequenceClassifier["logits"] {
  return (weights: Weights, inputs: ModelInputs, hidden_BTD: tf.Tensor3D) => {
    const [b, t] = inputs.tokens.shape;
    if (padTokenId === null && b !== 1) {
      throw new LockstepError("E_MODEL_CONFIG", {
        model,
        key: "pad_token_id",
        expected: "a token id, by which the last token of a row is found",
        got: "nothing",
      });
    }
    // As float32, exact below 2^24: TensorFlow has no GPU kernel for the arg max of integers.
    const positions_T = tf.tensor1d([...Array(t).keys()], "float32");
    const isReal_BT = tf.cast(
      tf.notEqual(inputs.tokens, tf.scalar(padTokenId ?? -1, "int32")),
      "float32",
    );
    const last_B = tf.argMax(tf.mul(positions_T, isReal_BT), 1) as tf.Tensor1D;
    const last_BD = rowsAt(hidden_BTD, last_B);
    return tf.matMul(last_BD, weights(scoreName) as tf.Tensor2D, false, true) as tf.Tensor2D;
  };
}
