// Shape legend: M rows (all leading dimensions), D model width.
import * as tf from "@tensorflow/tfjs-core";
import { hasKernel, runFused, runFusedMany } from "./kernel.js";

export const LayerNorm = "LayerNorm";
export const LayerNormGrad = "LayerNormGrad";

/**
 * y = weight * (x - mean) / sqrt(variance + epsilon) + bias over the last dimension, with the biased
 * variance (Ba et al. 2016).
 *
 * @param x float [..., D]
 * @param weight_D float32
 * @param bias_D float32
 * @returns float [..., D]
 */
export function layerNorm(
  x: tf.Tensor,
  weight_D: tf.Tensor,
  bias_D: tf.Tensor,
  epsilon: number,
): tf.Tensor {
  return hasKernel(LayerNorm)
    ? runFused(LayerNorm, { x, weight: weight_D, bias: bias_D }, { epsilon })
    : layerNormPrimitive(x, weight_D, bias_D, epsilon);
}

/** The same out of elementary ops: the oracle of the fused form. */
export function layerNormPrimitive(
  x: tf.Tensor,
  weight_D: tf.Tensor,
  bias_D: tf.Tensor,
  epsilon: number,
): tf.Tensor {
  const centred = tf.sub(x, tf.mean(x, -1, true));
  const variance = tf.mean(tf.square(centred), -1, true);
  const normalised = tf.mul(centred, tf.rsqrt(tf.add(variance, tf.scalar(epsilon))));
  return tf.add(tf.mul(normalised, weight_D), bias_D);
}

tf.registerGradient({
  kernelName: LayerNorm,
  inputsToSave: ["x", "weight"],
  gradFunc: (dy, saved, attrs) => {
    const [x, weight] = saved as [tf.Tensor, tf.Tensor];
    // Each input asks by itself; the graph makes equal nodes once.
    const grads = (): tf.Tensor[] =>
      runFusedMany(LayerNormGrad, { dy: dy as tf.Tensor, x, weight }, attrs);
    return {
      x: () => grads()[0] as tf.Tensor,
      weight: () => grads()[1] as tf.Tensor,
      bias: () => grads()[2] as tf.Tensor,
    };
  },
});
