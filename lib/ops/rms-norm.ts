// Shape legend: M rows (all leading dimensions), D model width.
import * as tf from "@tensorflow/tfjs-core";
import { hasKernel, runFused, runFusedMany } from "./kernel.js";

export const RmsNorm = "RmsNorm";
export const RmsNormGrad = "RmsNormGrad";

/**
 * y = weight * x / sqrt(mean(x^2) + epsilon) over the last dimension (Zhang and Sennrich 2019).
 *
 * @param x float [..., D]
 * @param weight_D float32
 * @returns float [..., D]
 */
export function rmsNorm(x: tf.Tensor, weight_D: tf.Tensor, epsilon: number): tf.Tensor {
  return hasKernel(RmsNorm)
    ? runFused(RmsNorm, { x, weight: weight_D }, { epsilon })
    : rmsNormPrimitive(x, weight_D, epsilon);
}

/** The same out of elementary ops: the oracle of the fused form. */
export function rmsNormPrimitive(x: tf.Tensor, weight_D: tf.Tensor, epsilon: number): tf.Tensor {
  const meanSquare = tf.mean(tf.square(x), -1, true);
  const normalised = tf.mul(x, tf.rsqrt(tf.add(meanSquare, tf.scalar(epsilon))));
  return tf.mul(normalised, weight_D);
}

tf.registerGradient({
  kernelName: RmsNorm,
  inputsToSave: ["x", "weight"],
  gradFunc: (dy, saved, attrs) => {
    const [x, weight] = saved as [tf.Tensor, tf.Tensor];
    // Each input asks by itself; the graph makes equal nodes once.
    const grads = (): tf.Tensor[] =>
      runFusedMany(RmsNormGrad, { dy: dy as tf.Tensor, x, weight }, attrs);
    return { x: () => grads()[0] as tf.Tensor, weight: () => grads()[1] as tf.Tensor };
  },
});
