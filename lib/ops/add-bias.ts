// Shape legend: M rows (all leading dimensions), N outputs of a projection.
import * as tf from "@tensorflow/tfjs-core";
import { hasKernel, runFused } from "./kernel.js";

export const AddBias = "AddBias";
export const AddBiasGrad = "AddBiasGrad";

/**
 * x + bias, in the type of x: a float32 bias does not widen a half product.
 *
 * @param x float [..., N]
 * @param bias_N float32
 */
export function addBias(x: tf.Tensor, bias_N: tf.Tensor): tf.Tensor {
  return hasKernel(AddBias) ? runFused(AddBias, { x, bias: bias_N }) : tf.add(x, bias_N);
}

/** The sum of all rows: the gradient of the bias. */
function sumOfRows(dy: tf.Tensor): tf.Tensor {
  if (hasKernel(AddBiasGrad)) return runFused(AddBiasGrad, { dy });
  return tf.sum(tf.reshape(dy, [-1, dy.shape.at(-1) as number]), 0);
}

tf.registerGradient({
  kernelName: AddBias,
  gradFunc: (dy) => ({ x: () => dy as tf.Tensor, bias: () => sumOfRows(dy as tf.Tensor) }),
});
