// Shape legend: M rows, F feed-forward width.
import * as tf from "@tensorflow/tfjs-core";
import { hasKernel, runFused, runFusedMany } from "./kernel.js";

export const SwiGlu = "SwiGlu";
export const SwiGluGrad = "SwiGluGrad";

/**
 * silu(gate) * up, with silu(z) = z * sigmoid(z) (Shazeer 2020, SwiGLU without its projections).
 *
 * @param gate_MF float [..., F]
 * @param up_MF float of the same shape
 */
export function swiGlu(gate_MF: tf.Tensor, up_MF: tf.Tensor): tf.Tensor {
  return hasKernel(SwiGlu)
    ? runFused(SwiGlu, { gate: gate_MF, up: up_MF })
    : swiGluPrimitive(gate_MF, up_MF);
}

/** The same out of elementary ops: the oracle of the fused form. */
export const swiGluPrimitive = (gate_MF: tf.Tensor, up_MF: tf.Tensor): tf.Tensor =>
  tf.mul(tf.mul(gate_MF, tf.sigmoid(gate_MF)), up_MF);

tf.registerGradient({
  kernelName: SwiGlu,
  inputsToSave: ["gate", "up"],
  gradFunc: (dy, saved) => {
    const [gate, up] = saved as [tf.Tensor, tf.Tensor];
    // Each input asks by itself; the graph makes equal nodes once.
    const grads = (): tf.Tensor[] => runFusedMany(SwiGluGrad, { dy: dy as tf.Tensor, gate, up });
    return { gate: () => grads()[0] as tf.Tensor, up: () => grads()[1] as tf.Tensor };
  },
});
