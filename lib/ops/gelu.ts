import * as tf from "@tensorflow/tfjs-core";
import { hasKernel, runFused } from "./kernel.js";

export const Gelu = "Gelu";
export const GeluGrad = "GeluGrad";

/** erf: x Phi(x); tanh: its approximation by a tanh; quick: x sigmoid(1.702 x) (Hendrycks and Gimpel 2016). */
export type GeluForm = "erf" | "tanh" | "quick";

/** sqrt(2 / pi) and the cubic term of the tanh form. */
export const geluTanh = { scale: Math.sqrt(2 / Math.PI), cubic: 0.044715 } as const;
export const geluQuickSlope = 1.702;

/** @param x float of any shape */
export function gelu(x: tf.Tensor, form: GeluForm): tf.Tensor {
  return hasKernel(Gelu) ? runFused(Gelu, { x }, { form }) : geluPrimitive(x, form);
}

/** The same out of elementary ops: the oracle of the fused form. */
export function geluPrimitive(x: tf.Tensor, form: GeluForm): tf.Tensor {
  switch (form) {
    case "quick":
      return tf.mul(x, tf.sigmoid(tf.mul(x, tf.scalar(geluQuickSlope))));
    case "tanh": {
      const cubed = tf.mul(tf.mul(tf.square(x), x), tf.scalar(geluTanh.cubic));
      const inner = tf.mul(tf.add(x, cubed), tf.scalar(geluTanh.scale));
      return tf.mul(tf.mul(x, tf.scalar(0.5)), tf.add(tf.tanh(inner), tf.scalar(1)));
    }
    case "erf": {
      const erf = tf.erf(tf.mul(x, tf.scalar(Math.SQRT1_2)));
      return tf.mul(tf.mul(x, tf.scalar(0.5)), tf.add(erf, tf.scalar(1)));
    }
  }
}

tf.registerGradient({
  kernelName: Gelu,
  inputsToSave: ["x"],
  gradFunc: (dy, saved, attrs) => {
    const [x] = saved as [tf.Tensor];
    return { x: () => runFused(GeluGrad, { dy: dy as tf.Tensor, x }, attrs) };
  },
});
