// Shape legend: T tokens, H head width.
import * as tf from "@tensorflow/tfjs-core";

/**
 * Cosines and sines of rotary angles, position * theta^(-2i/H), each rounded to float32 where
 * transformers rounds, so that far positions agree.
 *
 * @returns cos and sin, float32 [T, H/2]
 */
export function rotaryTables(
  numTokens: number,
  headDim: number,
  theta: number,
): { readonly cos: tf.Tensor2D; readonly sin: tf.Tensor2D } {
  const half = headDim / 2;
  const frequencies = Float32Array.from({ length: half }, (_, i) => {
    const exponent = Math.fround((2 * i) / headDim);
    return 1 / Math.fround(theta ** exponent);
  });
  const cos = new Float32Array(numTokens * half);
  const sin = new Float32Array(numTokens * half);
  for (let position = 0; position < numTokens; position++) {
    for (let i = 0; i < half; i++) {
      const angle = Math.fround(position * (frequencies[i] as number));
      cos[position * half + i] = Math.cos(angle);
      sin[position * half + i] = Math.sin(angle);
    }
  }
  return {
    cos: tf.tensor2d(cos, [numTokens, half]),
    sin: tf.tensor2d(sin, [numTokens, half]),
  };
}
