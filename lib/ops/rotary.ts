// Shape legend: B batch, T tokens, N heads, H head width.
import * as tf from "@tensorflow/tfjs-core";
import { hasKernel, runFused } from "./kernel.js";

export const Rotary = "Rotary";

/** Which way the pairs turn; a gradient turns back. */
export interface RotaryAttrs extends tf.NamedAttrMap {
  readonly inverse: boolean;
}

/**
 * Rotary positions in half-split form (Su et al. 2021; the layout of Hugging Face's Llama): element i
 * pairs with element i + H/2 and both turn by the angle of (position, i).
 *
 * @param x_BTNH float
 * @param cos_TH float32 [T, H/2], cosines of the angles
 * @param sin_TH float32 [T, H/2]
 * @returns float [B, T, N, H]
 */
export function rotary(x_BTNH: tf.Tensor, cos_TH: tf.Tensor, sin_TH: tf.Tensor): tf.Tensor {
  return hasKernel(Rotary)
    ? runFused(Rotary, { x: x_BTNH, cos: cos_TH, sin: sin_TH }, { inverse: false })
    : rotaryPrimitive(x_BTNH, cos_TH, sin_TH);
}

/** The same out of elementary ops: the oracle of the fused form. */
export function rotaryPrimitive(
  x_BTNH: tf.Tensor,
  cos_TH: tf.Tensor,
  sin_TH: tf.Tensor,
): tf.Tensor {
  const half = (x_BTNH.shape[3] as number) / 2;
  const numTokens = x_BTNH.shape[1] as number;
  const cos_T1H = tf.reshape(cos_TH, [numTokens, 1, half]);
  const sin_T1H = tf.reshape(sin_TH, [numTokens, 1, half]);
  const [first, second] = tf.split(x_BTNH, 2, 3) as [tf.Tensor, tf.Tensor];
  return tf.concat(
    [
      tf.sub(tf.mul(first, cos_T1H), tf.mul(second, sin_T1H)),
      tf.add(tf.mul(second, cos_T1H), tf.mul(first, sin_T1H)),
    ],
    3,
  );
}

tf.registerGradient({
  kernelName: Rotary,
  inputsToSave: ["cos", "sin"],
  gradFunc: (dy, saved, attrs) => {
    const [cos, sin] = saved as [tf.Tensor, tf.Tensor];
    const inverse = (attrs as unknown as RotaryAttrs).inverse;
    return {
      x: () => runFused(Rotary, { x: dy as tf.Tensor, cos, sin }, { inverse: !inverse }),
      // The angles are constants of the model.
      cos: () => tf.zerosLike(cos),
      sin: () => tf.zerosLike(sin),
    };
  },
});
