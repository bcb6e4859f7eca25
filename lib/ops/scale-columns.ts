// Shape legend: M rows (all leading dimensions), N columns.
import * as tf from "@tensorflow/tfjs-core";
import { hasKernel, runFused, runFusedMany } from "./kernel.js";

export const ScaleColumns = "ScaleColumns";
export const ScaleColumnsGrad = "ScaleColumnsGrad";

/**
 * x with each column times a number, in the type of x: float32 factors do not widen a half product.
 *
 * @param x float [..., N]
 * @param scale_N float32
 */
export function scaleColumns(x: tf.Tensor, scale_N: tf.Tensor): tf.Tensor {
  return hasKernel(ScaleColumns)
    ? runFused(ScaleColumns, { x, scale: scale_N })
    : tf.mul(x, scale_N);
}

tf.registerGradient({
  kernelName: ScaleColumns,
  inputsToSave: ["x", "scale"],
  gradFunc: (dy, saved) => {
    const [x, scale] = saved as [tf.Tensor, tf.Tensor];
    // Each input asks by itself; the graph makes equal nodes once.
    const grads = (): tf.Tensor[] =>
      runFusedMany(ScaleColumnsGrad, { dy: dy as tf.Tensor, x, scale });
    return { x: () => grads()[0] as tf.Tensor, scale: () => grads()[1] as tf.Tensor };
  },
});
