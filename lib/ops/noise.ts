// Shape legend: M positions, D width.
import * as tf from "@tensorflow/tfjs-core";
import { hasKernel, runFused } from "./kernel.js";
import { philoxWords } from "./philox.js";

export const AddNoise = "AddNoise";

/** From where one operation draws its noise. Nothing else enters, so whoever computes draws the same. */
interface NoiseSource {
  /** int32 [3]: the step, the gradient group in it and the micro-batch in that. */
  readonly coordinates: tf.Tensor;
  /** The run's, of 32 bits. */
  readonly seed: number;
  /** The operation's number among those of the forward pass that draw. */
  readonly site: number;
}

/** The source as kernel attributes. */
export interface NoiseAttrs extends tf.NamedAttrMap {
  readonly seed: number;
  readonly site: number;
}

/** Half of the different values of an element's 16 random bits. */
const halfOutcomes = 2 ** 15;
/** Of the bits 0 and of each next value: (bits + 1/2) / 2^15 - 1, symmetric around 0. */
export const noiseStart = 0.5 / halfOutcomes - 1;
export const noiseStep = 1 / halfOutcomes;

/**
 * x plus noise between -magnitude and magnitude, uniform over 2^16 values. It has no gradient.
 *
 * Element e takes the 16-bit half e % 2, the lower first, of word e / 2 of Philox4x32-10 with the key
 * (seed, site), from the counter (0, step, group, micro-batch) on.
 *
 * @param x_MD float
 * @param magnitude float32 scalar
 * @returns float32
 */
export function addNoise(x_MD: tf.Tensor, magnitude: tf.Tensor, source: NoiseSource): tf.Tensor {
  const { seed, site, coordinates } = source;
  if (hasKernel(AddNoise)) {
    return runFused(AddNoise, { x: x_MD, magnitude, coordinates }, { seed, site });
  }
  const noise_MD = tf.tensor(noiseValues(source, x_MD.size), x_MD.shape);
  return tf.add(tf.cast(x_MD, "float32"), tf.mul(noise_MD, magnitude));
}

/** Noise of the magnitude 1, where the coordinates have a value. */
export function noiseValues(
  { seed, site, coordinates }: NoiseSource,
  numElements: number,
): Float32Array {
  const counter = coordinates.dataSync() as unknown as [number, number, number];
  const words = philoxWords([seed, site], [0, ...counter], Math.ceil(numElements / 2));
  return Float32Array.from({ length: numElements }, (_, i) => {
    const word = words[i >>> 1] as number;
    return (i % 2 === 0 ? word & 0xffff : word >>> 16) * noiseStep + noiseStart;
  });
}

tf.registerGradient({
  kernelName: AddNoise,
  inputsToSave: ["magnitude", "coordinates"],
  gradFunc: (dy, saved) => {
    const [magnitude, coordinates] = saved as [tf.Tensor, tf.Tensor];
    return {
      x: () => dy as tf.Tensor,
      magnitude: () => tf.zerosLike(magnitude),
      coordinates: () => tf.zerosLike(coordinates),
    };
  },
});
