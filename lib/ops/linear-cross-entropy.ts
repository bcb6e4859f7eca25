// Shape legend: M rows, D model width, V vocabulary.
import * as tf from "@tensorflow/tfjs-core";
import { hasKernel, runFused, runFusedMany } from "./kernel.js";

export const LinearCrossEntropy = "LinearCrossEntropy";
export const LinearCrossEntropyGrad = "LinearCrossEntropyGrad";

/** What the loss over a vocabulary may be set to. */
interface LinearCrossEntropyOptions {
  /** Bound of the logits, softcap * tanh(logit / softcap) (Gemma 2); null: none. @default null */
  readonly softcap?: number | null;
  /** Share e of a target that is spread evenly over the vocabulary. @default 0 */
  readonly labelSmoothing?: number;
}

/**
 * Sum over supervised rows of -log softmax(hidden weight^T)[target]: the output projection and its
 * loss in one op, so that the logits of all rows never exist at once. With smoothing a row's loss is that of
 * transformers' LabelSmoother, -((1 - e) log p[target] + e/V sum_k log p[k]).
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
  const { softcap = null, labelSmoothing = 0 } = options;
  return (
    hasKernel(LinearCrossEntropy)
      ? runFused(
          LinearCrossEntropy,
          { hidden: hidden_MD, weight: weight_VD, targets: targets_M },
          { softcap: softcap ?? 0, labelSmoothing },
        )
      : linearCrossEntropyPrimitive(hidden_MD, weight_VD, targets_M, options)
  ) as tf.Scalar;
}

/** softcap * tanh(logits / softcap); null: the logits as they are. */
export function capLogits(logits: tf.Tensor, softcap: number | null): tf.Tensor {
  if (softcap === null) return logits;
  return tf.mul(tf.tanh(tf.div(logits, tf.scalar(softcap))), tf.scalar(softcap));
}

/** The same out of elementary ops: the oracle of the fused form. */
export function linearCrossEntropyPrimitive(
  hidden_MD: tf.Tensor2D,
  weight_VD: tf.Tensor2D,
  targets_M: tf.Tensor1D,
  { softcap = null, labelSmoothing = 0 }: LinearCrossEntropyOptions = {},
): tf.Tensor {
  const logits_MV = tf.matMul(hidden_MD, weight_VD, false, true);
  const logProbs_MV = tf.logSoftmax(capLogits(logits_MV, softcap));
  const supervised_M = tf.cast(tf.greaterEqual(targets_M, tf.scalar(0, "int32")), "float32");
  const safeTargets_M = tf.maximum(targets_M, tf.scalar(0, "int32")) as tf.Tensor1D;
  const oneHot_MV = tf.cast(tf.oneHot(safeTargets_M, weight_VD.shape[0]), "float32");
  const spread = tf.scalar(labelSmoothing / weight_VD.shape[0]);
  const shares_MV = tf.add(tf.mul(oneHot_MV, tf.scalar(1 - labelSmoothing)), spread);
  const nll_M = tf.neg(tf.sum(tf.mul(logProbs_MV, shares_MV), -1));
  return tf.sum(tf.mul(nll_M, supervised_M));
}

tf.registerGradient({
  kernelName: LinearCrossEntropy,
  inputsToSave: ["hidden", "weight", "targets"],
  gradFunc: (dy, saved, attrs) => {
    const [hidden, weight, targets] = saved as [tf.Tensor, tf.Tensor, tf.Tensor];
    // Each input asks by itself; the graph makes equal nodes once.
    const grads = (): tf.Tensor[] =>
      runFusedMany(LinearCrossEntropyGrad, { dy: dy as tf.Tensor, hidden, weight, targets }, attrs);
    return {
      hidden: () => grads()[0] as tf.Tensor,
      weight: () => grads()[1] as tf.Tensor,
      targets: () => tf.zerosLike(targets),
    };
  },
});
