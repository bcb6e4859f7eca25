// Shape legend: M rows, D model width, V vocabulary.
import * as tf from "@tensorflow/tfjs-core";
import { hasKernel, runFused, runFusedMany } from "./kernel.js";

export const LinearCrossEntropy = "LinearCrossEntropy";
export const LinearCrossEntropyGrad = "LinearCrossEntropyGrad";
/** The same with a fourth input, `weights`: how much each row counts. */
export const WeightedLinearCrossEntropy = "WeightedLinearCrossEntropy";
export const WeightedLinearCrossEntropyGrad = "WeightedLinearCrossEntropyGrad";

/** The loss of each row, and not their sum. */
export const LinearTokenLosses = "LinearTokenLosses";
export const LinearTokenLossesGrad = "LinearTokenLossesGrad";

/** What is told of each row's distribution beside the loss; nothing is learnt of it. */
export const LinearTokenFigures = "LinearTokenFigures";

/** What the loss over a vocabulary may be set to. */
interface LinearCrossEntropyOptions {
  /** Bound of the logits, softcap * tanh(logit / softcap) (Gemma 2); null: none. @default null */
  readonly softcap?: number | null;
  /** Share e of a target that is spread evenly over the vocabulary. @default 0 */
  readonly labelSmoothing?: number;
  /** z of PaLM's auxiliary loss, z log^2 Z a row, with Z the sum of the logits' exponentials. @default 0 */
  readonly zLossWeight?: number;
  /** float32 [M] of at least 0: how much each row counts; absent: 1 each. */
  readonly weights?: tf.Tensor1D | undefined;
}

/**
 * Sum over supervised rows of -log softmax(hidden weight^T)[target], each times its weight: the output
 * projection and its loss in one op, so that the logits of all rows never exist at once. With smoothing a row's
 * loss is that of transformers' LabelSmoother, -((1 - e) log p[target] + e/V sum_k log p[k]).
 *
 * @param hidden_MD float
 * @param weight_VD float
 * @param targets_M int32; a negative target is ignored
 * @returns float32 scalar
 */
export function linearCrossEntropy(
  hidden_MD: tf.Tensor2D,
  weight_VD: tf.Tensor2D,
  targets_M: tf.Tensor1D,
  options: LinearCrossEntropyOptions = {},
): tf.Scalar {
  const { softcap = null, labelSmoothing = 0, zLossWeight = 0, weights } = options;
  const kernel = weights === undefined ? LinearCrossEntropy : WeightedLinearCrossEntropy;
  if (!hasKernel(kernel)) {
    return linearCrossEntropyPrimitive(hidden_MD, weight_VD, targets_M, options) as tf.Scalar;
  }
  return runFused(
    kernel,
    {
      ...{ hidden: hidden_MD, weight: weight_VD, targets: targets_M },
      ...(weights === undefined ? {} : { weights }),
    },
    { softcap: softcap ?? 0, labelSmoothing, zLossWeight },
  ) as tf.Scalar;
}

/**
 * The same row by row: -log softmax(hidden weight^T)[target] of each row, 0 where the target is ignored. Each row's
 * gradient is its own, so sums and functions of any kind may follow.
 *
 * @returns float32 [M]
 */
export function linearTokenLosses(
  hidden_MD: tf.Tensor2D,
  weight_VD: tf.Tensor2D,
  targets_M: tf.Tensor1D,
  options: Omit<LinearCrossEntropyOptions, "weights"> = {},
): tf.Tensor1D {
  const { softcap = null, labelSmoothing = 0, zLossWeight = 0 } = options;
  return (
    hasKernel(LinearTokenLosses)
      ? runFused(
          LinearTokenLosses,
          { hidden: hidden_MD, weight: weight_VD, targets: targets_M },
          { softcap: softcap ?? 0, labelSmoothing, zLossWeight },
        )
      : tokenLossesPrimitive(hidden_MD, weight_VD, targets_M, options)
  ) as tf.Tensor1D;
}

/**
 * Of each row the mean of its logits over the vocabulary, the entropy of their softmax in nats, and 1 where the target
 * is the first of the largest logits, else 0. Rows whose target is ignored have numbers without a meaning.
 *
 * @returns float32 [M, 3], without a gradient
 */
export function linearTokenFigures(
  hidden_MD: tf.Tensor2D,
  weight_VD: tf.Tensor2D,
  targets_M: tf.Tensor1D,
  softcap: number | null,
): tf.Tensor2D {
  if (hasKernel(LinearTokenFigures)) {
    return runFused(
      LinearTokenFigures,
      { hidden: hidden_MD, weight: weight_VD, targets: targets_M },
      { softcap: softcap ?? 0 },
    ) as tf.Tensor2D;
  }
  const logits_MV = capLogits(tf.matMul(hidden_MD, weight_VD, false, true), softcap);
  const logProbs_MV = tf.logSoftmax(logits_MV);
  const entropy_M = tf.neg(tf.sum(tf.mul(tf.exp(logProbs_MV), logProbs_MV), -1));
  const isTop_M = tf.cast(tf.equal(tf.argMax(logits_MV, -1), targets_M), "float32");
  return tf.stack([tf.mean(logits_MV, -1), entropy_M, isTop_M], 1) as tf.Tensor2D;
}

/** softcap * tanh(logits / softcap); null: the logits as they are. */
export function capLogits(logits: tf.Tensor, softcap: number | null): tf.Tensor {
  if (softcap === null) return logits;
  return tf.mul(tf.tanh(tf.div(logits, tf.scalar(softcap))), tf.scalar(softcap));
}

/** The same out of elementary ops: the oracle of the fused form. */
export const linearCrossEntropyPrimitive = (
  ...args: Parameters<typeof tokenLossesPrimitive>
): tf.Tensor => tf.sum(tokenLossesPrimitive(...args));

/** The loss of each row, out of elementary ops. */
function tokenLossesPrimitive(
  hidden_MD: tf.Tensor2D,
  weight_VD: tf.Tensor2D,
  targets_M: tf.Tensor1D,
  { softcap = null, labelSmoothing = 0, zLossWeight = 0, weights }: LinearCrossEntropyOptions = {},
): tf.Tensor {
  const logits_MV = capLogits(tf.matMul(hidden_MD, weight_VD, false, true), softcap);
  const logProbs_MV = tf.logSoftmax(logits_MV);
  const supervised_M = tf.cast(tf.greaterEqual(targets_M, tf.scalar(0, "int32")), "float32");
  const safeTargets_M = tf.maximum(targets_M, tf.scalar(0, "int32")) as tf.Tensor1D;
  const oneHot_MV = tf.cast(tf.oneHot(safeTargets_M, weight_VD.shape[0]), "float32");
  const spread = tf.scalar(labelSmoothing / weight_VD.shape[0]);
  const shares_MV = tf.add(tf.mul(oneHot_MV, tf.scalar(1 - labelSmoothing)), spread);
  const nll_M = tf.neg(tf.sum(tf.mul(logProbs_MV, shares_MV), -1));
  const loss_M = zLossWeight === 0 ? nll_M : tf.add(nll_M, zLoss(logits_MV, zLossWeight));
  const counted_M = weights === undefined ? supervised_M : tf.mul(supervised_M, weights);
  return tf.mul(loss_M, counted_M);
}

/** z log^2 Z of each row of logits. */
export const zLoss = (logits: tf.Tensor, zLossWeight: number): tf.Tensor =>
  tf.mul(tf.square(tf.logSumExp(logits, -1)), tf.scalar(zLossWeight));

for (const [kernelName, grad, names] of [
  [LinearCrossEntropy, LinearCrossEntropyGrad, ["hidden", "weight", "targets"]],
  [LinearTokenLosses, LinearTokenLossesGrad, ["hidden", "weight", "targets"]],
  [
    WeightedLinearCrossEntropy,
    WeightedLinearCrossEntropyGrad,
    ["hidden", "weight", "targets", "weights"],
  ],
] as const) {
  tf.registerGradient({
    kernelName,
    inputsToSave: [...names],
    gradFunc: (dy, saved, attrs) => {
      const inputs = Object.fromEntries(names.map((name, i) => [name, saved[i] as tf.Tensor]));
      // Each input asks by itself; the graph makes equal nodes once.
      const grads = (): tf.Tensor[] =>
        runFusedMany(grad, { dy: dy as tf.Tensor, ...inputs }, attrs);
      // Targets and weights are given: nobody asks for a gradient of theirs.
      return Object.fromEntries(
        names.map((name, i) => [
          name,
          () => (i < 2 ? (grads()[i] as tf.Tensor) : tf.zerosLike(inputs[name] as tf.Tensor)),
        ]),
      );
    },
  });
}
