// Shape legend: B rows, L labels. All in float32.
import * as tf from "@tensorflow/tfjs-core";
import { zLoss } from "./linear-cross-entropy.js";

/** What a loss over classes that exclude each other may be set to. */
interface ClassLossOptions {
  /** By class; absent: 1 each. */
  readonly classWeights?: readonly number[] | undefined;
  /** Share of a target that is spread evenly over all classes. @default 0 */
  readonly labelSmoothing?: number;
  /** z of a loss z log^2 Z a row, which counts as its class does. @default 0 */
  readonly zLossWeight?: number;
  /** float32, how much each row counts; absent: 1 each. */
  readonly rowWeights_B1?: tf.Tensor2D | undefined;
}

/**
 * Sum over rows of -log softmax(logits)[target], or of its form with weights w and smoothing e, which is that of
 * torch's cross_entropy: -((1 - e) w[target] log p[target] + e/L sum_k w[k] log p[k]).
 *
 * @param logits_BL float
 * @param targets_B int32; a negative target is ignored
 */
export function singleLabelLoss(
  logits_BL: tf.Tensor2D,
  targets_B: tf.Tensor1D,
  { classWeights, labelSmoothing = 0, zLossWeight = 0, rowWeights_B1 }: ClassLossOptions = {},
): tf.Scalar {
  const zero = tf.scalar(0, "int32");
  const x_BL = tf.cast(logits_BL, "float32");
  const logProbs_BL = tf.logSoftmax(x_BL);
  const supervised_B = tf.cast(tf.greaterEqual(targets_B, zero), "float32");
  const numLabels = logits_BL.shape[1];
  const oneHot_BL = tf.cast(
    tf.oneHot(tf.maximum(targets_B, zero) as tf.Tensor1D, numLabels),
    "float32",
  );
  const byClass = (shares_BL: tf.Tensor): tf.Tensor =>
    classWeights === undefined
      ? shares_BL
      : tf.mul(shares_BL, tf.tensor2d([...classWeights], [1, numLabels]));
  const smoothed_BL =
    labelSmoothing === 0
      ? oneHot_BL
      : tf.add(
          tf.mul(oneHot_BL, tf.scalar(1 - labelSmoothing)),
          tf.scalar(labelSmoothing / numLabels),
        );
  let logProb_B = tf.sum(tf.mul(logProbs_BL, byClass(smoothed_BL)), -1);
  if (zLossWeight !== 0) {
    const classWeight_B = tf.sum(byClass(oneHot_BL), -1);
    logProb_B = tf.sub(logProb_B, tf.mul(zLoss(x_BL, zLossWeight), classWeight_B));
  }
  const counted_B =
    rowWeights_B1 === undefined
      ? supervised_B
      : tf.mul(supervised_B, tf.reshape(rowWeights_B1, [logits_BL.shape[0]]));
  return tf.neg(tf.sum(tf.mul(logProb_B, counted_B))) as tf.Scalar;
}

/**
 * Sum over rows and labels of the binary cross-entropy of sigmoid(logits), in the form that does not
 * overflow: max(x, 0) - x y + log(1 + exp(-|x|)). With weights p of the positive targets it is that of torch's
 * `pos_weight`: (1 - y) x + (1 + (p - 1) y) (log(1 + exp(-|x|)) + max(-x, 0)).
 *
 * @param logits_BL float
 * @param targets_BL float32 in [0, 1]; a negative target is ignored
 * @param options.positiveWeights by label; absent: 1 each
 * @param options.rowWeights_B1 float32, how much each row counts; absent: 1 each
 */
export function multiLabelLoss(
  logits_BL: tf.Tensor2D,
  targets_BL: tf.Tensor2D,
  {
    positiveWeights,
    rowWeights_B1,
  }: {
    readonly positiveWeights?: readonly number[] | undefined;
    readonly rowWeights_B1?: tf.Tensor2D | undefined;
  } = {},
): tf.Scalar {
  const x_BL = tf.cast(logits_BL, "float32");
  const supervised_BL = tf.cast(tf.greaterEqual(targets_BL, tf.scalar(0)), "float32");
  const loss_BL =
    positiveWeights === undefined
      ? binaryLoss(x_BL, targets_BL)
      : weightedBinaryLoss(x_BL, targets_BL, positiveWeights);
  const counted_BL =
    rowWeights_B1 === undefined ? supervised_BL : tf.mul(supervised_BL, rowWeights_B1);
  return tf.sum(tf.mul(loss_BL, counted_BL)) as tf.Scalar;
}

function binaryLoss(x_BL: tf.Tensor2D, targets_BL: tf.Tensor2D): tf.Tensor {
  const positivePart_BL = tf.sub(tf.relu(x_BL), tf.mul(x_BL, tf.relu(targets_BL)));
  return tf.add(positivePart_BL, tf.log1p(tf.exp(tf.neg(tf.abs(x_BL)))));
}

function weightedBinaryLoss(
  x_BL: tf.Tensor2D,
  targets_BL: tf.Tensor2D,
  positiveWeights: readonly number[],
): tf.Tensor {
  const y_BL = tf.relu(targets_BL);
  const extra = positiveWeights.map((weight) => weight - 1);
  const weights_BL = tf.add(tf.mul(y_BL, tf.tensor2d(extra, [1, extra.length])), tf.scalar(1));
  const softplus_BL = tf.add(tf.log1p(tf.exp(tf.neg(tf.abs(x_BL)))), tf.relu(tf.neg(x_BL)));
  return tf.add(tf.sub(x_BL, tf.mul(x_BL, y_BL)), tf.mul(weights_BL, softplus_BL));
}

/**
 * Sum over rows and outputs of the squared error.
 *
 * @param logits_BL float
 * @param targets_BL float32
 * @param counted_B1 int32; a row below 0 is ignored
 * @param rowWeights_B1 float32, how much each row counts; absent: 1 each
 */
export function squaredErrorLoss(
  logits_BL: tf.Tensor2D,
  targets_BL: tf.Tensor2D,
  counted_B1: tf.Tensor2D,
  rowWeights_B1?: tf.Tensor2D,
): tf.Scalar {
  const isCounted_B1 = tf.cast(tf.greaterEqual(counted_B1, tf.scalar(0, "int32")), "float32");
  const error_BL = tf.mul(tf.sub(tf.cast(logits_BL, "float32"), targets_BL), isCounted_B1);
  const square_BL = tf.square(error_BL);
  return tf.sum(
    rowWeights_B1 === undefined ? square_BL : tf.mul(square_BL, rowWeights_B1),
  ) as tf.Scalar;
}
