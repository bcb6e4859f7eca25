// Shape legend: B batch, T tokens, N heads, H head width, R rotated width (R <= H).
import * as tf from "@tensorflow/tfjs-core";
import { hasKernel, runFused } from "./kernel.js";

export const Rotary = "Rotary";

/** Which way the pairs turn; a gradient turns back. */
interface RotaryAttrs extends tf.NamedAttrMap {
  readonly inverse: boolean;
}

/**
 * Rotary positions in half-split form (Su et al. 2021; the layout of Hugging Face's Llama): element i
 * pairs with element i + R/2 and both turn by the angle of (position, i). Elements from R on stay.
 *
 * @param x_BTNH float
 * @param cos float32 [T, R/2], or [B, T, R/2] where rows have positions of their own
 * @param sin float32 of the same shape
 * @returns float [B, T, N, H]
 */
export function rotary(x_BTNH: tf.Tensor, cos: tf.Tensor, sin: tf.Tensor): tf.Tensor {
  return hasKernel(Rotary)
    ? runFused(Rotary, { x: x_BTNH, cos, sin }, { inverse: false })
    : rotaryPrimitive(x_BTNH, cos, sin);
}

/** The same out of elementary ops: the oracle of the fused form. */
function rotaryPrimitive(x_BTNH: tf.Tensor, cos: tf.Tensor, sin: tf.Tensor): tf.Tensor {
  const half = cos.shape.at(-1) as number;
  const width = x_BTNH.shape[3] as number;
  const cos_T1R = tf.expandDims(cos, -2);
  const sin_T1R = tf.expandDims(sin, -2);
  const [first, second, rest] = tf.split(x_BTNH, [half, half, width - 2 * half], 3) as [
    tf.Tensor,
    tf.Tensor,
    tf.Tensor,
  ];
  return tf.concat(
    [
      tf.sub(tf.mul(first, cos_T1R), tf.mul(second, sin_T1R)),
      tf.add(tf.mul(second, cos_T1R), tf.mul(first, sin_T1R)),
      ...(width === 2 * half ? [] : [rest]),
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
