import * as tf from "@tensorflow/tfjs-core";
import { hasKernel, runFused } from "./kernel.js";
import { philoxWords } from "./philox.js";

export const Dropout = "Dropout";
export const DropoutGrad = "DropoutGrad";

/**
 * From where one operation draws its mask. Nothing else enters, so whoever computes, and however often,
 * drops the same values.
 */
export interface DropoutSource {
  /** Probability that a value is dropped, above 0 and below 1. */
  readonly rate: number;
  /** int32 [3]: the step, the gradient group in it and the micro-batch in that. */
  readonly coordinates: tf.Tensor;
  /** The run's, of 32 bits. */
  readonly seed: number;
  /** The operation's number among those of the forward pass that draw. */
  readonly site: number;
}

/** The source as kernel attributes. */
export interface DropoutAttrs extends tf.NamedAttrMap {
  readonly seed: number;
  readonly site: number;
  /** Values whose 16 random bits are a number below it are dropped. */
  readonly threshold: number;
}

/** Different values of an element's random bits; rates are multiples of one over it. */
const numOutcomes = 2 ** 16;
/** Elements that four words of Philox are enough for. */
export const groupElements = 8;

export const dropoutAttrs = ({ rate, seed, site }: DropoutSource): DropoutAttrs => ({
  seed,
  site,
  // Each rate above 0 drops something, each below 1 keeps something.
  threshold: Math.min(numOutcomes - 1, Math.max(1, Math.round(rate * numOutcomes))),
});

/** What a value that is kept is multiplied by, so that its expectation is itself. */
export const keptScale = ({ threshold }: Pick<DropoutAttrs, "threshold">): number =>
  numOutcomes / (numOutcomes - threshold);

/**
 * Inverted dropout (Srivastava et al. 2014): each value becomes 0 with the probability `rate`, else
 * x / (1 - rate), where `rate` is rounded to a multiple of 2^-16. The mask is made again for the gradient.
 *
 * Element e of x is dropped by the 16-bit half e % 2, the lower first, of word e / 2 of Philox4x32-10 with
 * the key (seed, site), from the counter (0, step, group, micro-batch) on.
 *
 * @param x float
 */
export function dropout(x: tf.Tensor, source: DropoutSource): tf.Tensor {
  const attrs = dropoutAttrs(source);
  const { coordinates } = source;
  return hasKernel(Dropout)
    ? runFused(Dropout, { x, coordinates }, attrs)
    : dropoutPrimitive(x, source);
}

/** The same out of elementary ops, with the mask as a constant: the oracle of the fused form. */
const dropoutPrimitive = (x: tf.Tensor, source: DropoutSource): tf.Tensor =>
  tf.mul(x, tf.tensor(dropoutFactors(source, x.size), x.shape));

/**
 * What elements are multiplied by, 0 or {@link keptScale}, where the coordinates have a value.
 *
 * @param firstGroup groups of eight elements before the first
 */
export function dropoutFactors(
  source: DropoutSource,
  numElements: number,
  firstGroup = 0,
): Float32Array {
  const attrs = dropoutAttrs(source);
  const [step, group, index] = source.coordinates.dataSync() as unknown as [number, number, number];
  const words = philoxWords(
    [attrs.seed, attrs.site],
    [firstGroup, step, group, index],
    Math.ceil(numElements / 2),
  );
  return Float32Array.from({ length: numElements }, (_, i) => {
    const word = words[i >>> 1] as number;
    const bits = i % 2 === 0 ? word & 0xffff : word >>> 16;
    return bits < attrs.threshold ? 0 : keptScale(attrs);
  });
}

tf.registerGradient({
  kernelName: Dropout,
  inputsToSave: ["coordinates"],
  gradFunc: (dy, saved, attrs) => {
    const [coordinates] = saved as [tf.Tensor];
    return {
      x: () => runFused(DropoutGrad, { dy: dy as tf.Tensor, coordinates }, attrs),
      coordinates: () => tf.zerosLike(coordinates),
    };
  },
});
