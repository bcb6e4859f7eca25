// Shape legend: M rows (all leading dimensions), N outputs of a projection.
import * as tf from "@tensorflow/tfjs-core";
import { hasKernel, runFused } from "./kernel.js";

export const AddBias = "AddBias";

/**
 * x + bias, in the type of x: a float32 bias does not widen a half product.
 *
 * @param x float [..., N]
 * @param bias_N float32
 */
export function addBias(x: tf.Tensor, bias_N: tf.Tensor): tf.Tensor {
  return hasKernel(AddBias) ? runFused(AddBias, { x, bias: bias_N }) : tf.add(x, bias_N);
}

tf.registerGradient({
  kernelName: AddBias,
  gradFunc: (dy) => {
    const { shape } = dy as tf.Tensor;
    return {
      x: () => dy as tf.Tensor,
      bias: () => tf.sum(tf.reshape(dy as tf.Tensor, [-1, shape.at(-1) as number]), 0),
    };
  },
});
