// Shape legend: M rows, D model width, V vocabulary.
import * as tf from "@tensorflow/tfjs-core";
import { hasKernel, runFused, runFusedMany } from "./kernel.js";

export const LinearCrossEntropy = "LinearCrossEntropy";
export const LinearCrossEntropyGrad = "LinearCrossEntropyGrad";

/**
 * Sum over supervised rows of -log softmax(hidden weight^T)[target]: the output projection and its
 * loss in one op, so that the logits of all rows never exist at once.
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
): tf.Scalar {
  return (
    hasKernel(LinearCrossEntropy)
      ? runFused(LinearCrossEntropy, { hidden: hidden_MD, weight: weight_VD, targets: targets_M })
      : linearCrossEntropyPrimitive(hidden_MD, weight_VD, targets_M)
  ) as tf.Scalar;
}

/** The same out of elementary ops: the oracle of the fused form. */
export function linearCrossEntropyPrimitive(
  hidden_MD: tf.Tensor2D,
  weight_VD: tf.Tensor2D,
  targets_M: tf.Tensor1D,
): tf.Tensor {
  const logProbs_MV = tf.logSoftmax(tf.matMul(hidden_MD, weight_VD, false, true));
  const supervised_M = tf.cast(tf.greaterEqual(targets_M, tf.scalar(0, "int32")), "float32");
  const safeTargets_M = tf.maximum(targets_M, tf.scalar(0, "int32")) as tf.Tensor1D;
  const oneHot_MV = tf.oneHot(safeTargets_M, weight_VD.shape[0]);
  const nll_M = tf.neg(tf.sum(tf.mul(logProbs_MV, tf.cast(oneHot_MV, "float32")), -1));
  return tf.sum(tf.mul(nll_M, supervised_M));
}

tf.registerGradient({
  kernelName: LinearCrossEntropy,
  inputsToSave: ["hidden", "weight", "targets"],
  gradFunc: (dy, saved) => {
    const [hidden, weight, targets] = saved as [tf.Tensor, tf.Tensor, tf.Tensor];
    // Each input asks by itself; the graph makes equal nodes once.
    const grads = (): tf.Tensor[] =>
      runFusedMany(LinearCrossEntropyGrad, {
        dy: dy as tf.Tensor,
        hidden,
        weight,
        targets,
      });
    return {
      hidden: () => grads()[0] as tf.Tensor,
      weight: () => grads()[1] as tf.Tensor,
      targets: () => tf.zerosLike(targets),
    };
  },
});
