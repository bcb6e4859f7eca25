// Shape legend: B batch, T tokens, M = B*T, D model width, L labels.
import * as tf from "@tensorflow/tfjs-core";
import type { WorkerJob } from "#lib/core/job";
import type { GraphBuilder, GraphTensor } from "#lib/graph/builder";
import * as op from "#lib/graph/tf-ops";
import { symbolicTensor } from "#lib/graph/tracing-backend";
import type {
  CausalLanguageModel,
  ModelInputs,
  SequenceClassifier,
  Weights,
} from "#lib/models/index";
import { linearCrossEntropy, singleLabelLoss } from "#lib/ops/index";

/** A model with a head that a job can train. */
export type TrainableModel = CausalLanguageModel | SequenceClassifier;

type Feeds = Readonly<Record<string, GraphTensor>>;

/** The feeds of a batch in static shape; packed or padded rows bring segments and positions. */
export function batchFeeds(
  graph: GraphBuilder,
  program: string,
  job: WorkerJob,
  numRows: number,
): Feeds {
  const names = [
    "tokens",
    "targets",
    ...(job.hasSegments === true ? ["segments", "positions"] : []),
    ...(job.hasTokenTypes === true ? ["tokenTypes"] : []),
  ];
  return Object.fromEntries(
    names.map((name) => [
      name,
      op.placeholder(graph, `feed/${program}/${name}`, "int32", [numRows, job.sequenceLength]),
    ]),
  );
}

const fed = (feeds: Feeds, name: string): tf.Tensor2D =>
  symbolicTensor(feeds[name] as GraphTensor) as tf.Tensor2D;

export interface BatchOutputs {
  /** Sum of negative log-likelihoods. */
  readonly nllSum: tf.Scalar;
  /** Scores of a classifier's classes, float [B, L]. */
  readonly logits_BL?: tf.Tensor2D;
}

/**
 * Loss of a fed batch: of tokens, or of the classes of rows, which stand at the first position of each
 * row's targets.
 */
export function batchOutputs(model: TrainableModel, weights: Weights, feeds: Feeds): BatchOutputs {
  const tokens_BT = fed(feeds, "tokens");
  const targets_BT = fed(feeds, "targets");
  const [b, t] = tokens_BT.shape;
  const inputs: ModelInputs = {
    tokens: tokens_BT,
    ...(feeds.segments === undefined
      ? {}
      : { segments: fed(feeds, "segments"), positions: fed(feeds, "positions") }),
    ...(feeds.tokenTypes === undefined ? {} : { tokenTypes: fed(feeds, "tokenTypes") }),
  };
  const hidden_BTD = model.hiddenStates(weights, inputs);
  if (model.task === "sequence-classification") {
    const targets_B = tf.reshape(tf.slice(targets_BT, [0, 0], [b, 1]), [b]) as tf.Tensor1D;
    const logits_BL = model.logits(weights, inputs, hidden_BTD);
    return { nllSum: singleLabelLoss(logits_BL, targets_B), logits_BL };
  }
  const hidden_MD = tf.reshape(hidden_BTD, [b * t, hidden_BTD.shape[2]]) as tf.Tensor2D;
  const targets_M = tf.reshape(targets_BT, [b * t]) as tf.Tensor1D;
  const projection = model.outputProjection(weights);
  return { nllSum: linearCrossEntropy(hidden_MD, projection, targets_M, model.logitSoftcap) };
}
