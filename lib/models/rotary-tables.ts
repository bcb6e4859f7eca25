// Shape legend: B batch, T tokens, R rotated width.
import * as tf from "@tensorflow/tfjs-core";
import type { Rotary } from "./rotary-config.js";

/** Cosines and sines of the angles, float32 [T, R/2], or [B, T, R/2] for positions by row. */
export interface RotaryTables {
  readonly cos: tf.Tensor;
  readonly sin: tf.Tensor;
}

/**
 * Cosines and sines of rotary angles, position * frequency, each rounded to float32 where transformers
 * rounds, so that far positions agree.
 *
 * @param positions_BT int32, where they are not 0 to T-1
 * @param sequenceLength tokens of the whole sequence, which some types depend on
 */
export function rotaryTables(
  rotary: Rotary,
  numTokens: number,
  positions_BT?: tf.Tensor2D,
  sequenceLength: number = numTokens,
): RotaryTables {
  const half = rotary.width / 2;
  const { frequencies, scale } = rotaryFrequencies(rotary, sequenceLength);
  if (positions_BT !== undefined) {
    const positions_BT1 = tf.expandDims(tf.cast(positions_BT, "float32"), 2);
    const angles = tf.mul(positions_BT1, tf.tensor1d(frequencies));
    const scaled = (x: tf.Tensor): tf.Tensor => (scale === 1 ? x : tf.mul(x, tf.scalar(scale)));
    return { cos: scaled(tf.cos(angles)), sin: scaled(tf.sin(angles)) };
  }
  const cos = new Float32Array(numTokens * half);
  const sin = new Float32Array(numTokens * half);
  for (let position = 0; position < numTokens; position++) {
    for (let i = 0; i < half; i++) {
      const angle = Math.fround(position * (frequencies[i] as number));
      cos[position * half + i] = scale * Math.cos(angle);
      sin[position * half + i] = scale * Math.sin(angle);
    }
  }
  return {
    cos: tf.tensor2d(cos, [numTokens, half]),
    sin: tf.tensor2d(sin, [numTokens, half]),
  };
}

/** Angle per position of each pair, and the factor of cosines and sines (YaRN, LongRoPE). */
export function rotaryFrequencies(
  rotary: Rotary,
  sequenceLength: number,
): { readonly frequencies: Float32Array; readonly scale: number } {
  const plain = baseFrequencies(rotary.theta, rotary.width);
  switch (rotary.type) {
    case "default":
      return { frequencies: plain, scale: 1 };
    case "linear":
      return { frequencies: plain.map((frequency) => frequency / rotary.factor), scale: 1 };
    case "dynamic": {
      const { factor, maxPositions, theta, width } = rotary;
      const length = Math.max(sequenceLength, maxPositions);
      const stretch = (factor * length) / maxPositions - (factor - 1);
      const grown = theta * stretch ** (width / (width - 2));
      return { frequencies: baseFrequencies(grown, width), scale: 1 };
    }
    case "llama3":
      return { frequencies: llama3Frequencies(rotary, plain), scale: 1 };
    case "yarn":
      return { frequencies: yarnFrequencies(rotary, plain), scale: rotary.attentionFactor };
    case "longrope": {
      const isLong = sequenceLength > rotary.originalMaxPositions;
      const factors = isLong ? rotary.longFactor : rotary.shortFactor;
      const frequencies = plain.map((frequency, i) => frequency / (factors[i] as number));
      return { frequencies, scale: rotary.attentionFactor };
    }
  }
}

/** theta^(-2i/R). */
function baseFrequencies(theta: number, width: number): Float32Array {
  return Float32Array.from({ length: width / 2 }, (_, i) => {
    const exponent = Math.fround((2 * i) / width);
    return 1 / Math.fround(theta ** exponent);
  });
}

/** Llama 3.1: long waves are stretched, short ones stay, with a smooth passage between. */
function llama3Frequencies(
  rotary: Extract<Rotary, { type: "llama3" }>,
  plain: Float32Array,
): Float32Array {
  const { factor, lowFrequencyFactor: low, highFrequencyFactor: high } = rotary;
  const length = rotary.originalMaxPositions;
  return plain.map((frequency) => {
    const wave = (2 * Math.PI) / frequency;
    if (wave < length / high) return frequency;
    if (wave > length / low) return frequency / factor;
    const smooth = (length / wave - low) / (high - low);
    return ((1 - smooth) * frequency) / factor + smooth * frequency;
  });
}

/** YaRN (Peng et al. 2023): between two numbers of rotations, from as trained to interpolated. */
function yarnFrequencies(
  rotary: Extract<Rotary, { type: "yarn" }>,
  plain: Float32Array,
): Float32Array {
  const { theta, width, factor, betaFast, betaSlow, truncate } = rotary;
  const pairOf = (rotations: number): number =>
    (width * Math.log(rotary.originalMaxPositions / (rotations * 2 * Math.PI))) /
    (2 * Math.log(theta));
  const round = (value: number, to: (x: number) => number): number =>
    truncate ? to(value) : value;
  const first = Math.max(round(pairOf(betaFast), Math.floor), 0);
  const end = Math.min(round(pairOf(betaSlow), Math.ceil), width - 1);
  const last = end === first ? end + 0.001 : end;
  return plain.map((frequency, i) => {
    const interpolated = Math.min(Math.max((i - first) / (last - first), 0), 1);
    return (frequency / factor) * interpolated + frequency * (1 - interpolated);
  });
}
