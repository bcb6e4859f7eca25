import { adamStep4, setAdamFactors } from "./lib/adam";
import { storeBfloat16 } from "./lib/bfloat16";

let gradientScale: f32 = 1;
let decayFactor: f32 = 1;

/**
 * Factors of the calls that follow: set once for the blocks of a region instead of travelling through every
 * call. The others are those of `setAdamFactors`.
 *
 * @param newDecayFactor 1 - learningRate * weightDecay
 */
export function setAdamWFactors(
  newGradientScale: f32,
  newDecayFactor: f32,
  oneMinusBeta1: f32,
  beta2: f32,
  oneMinusBeta2: f32,
  negativeStepSize: f32,
  biasCorrection2Sqrt: f32,
  epsilon: f32,
): void {
  gradientScale = newGradientScale;
  decayFactor = newDecayFactor;
  setAdamFactors(
    oneMinusBeta1,
    beta2,
    oneMinusBeta2,
    negativeStepSize,
    biasCorrection2Sqrt,
    epsilon,
  );
}

/**
 * AdamW of 4 elements (Loshchilov and Hutter 2019, in the order of operations of torch.optim.AdamW).
 * Reads and writes masters and both moments; returns the new masters.
 */
// @ts-ignore: decorator
@inline
function adamW4(p: usize, m: usize, v: usize, g: usize): v128 {
  const gradient = f32x4.mul(v128.load(g), f32x4.splat(gradientScale));
  const step = adamStep4(m, v, gradient);
  const decayed = f32x4.mul(v128.load(p), f32x4.splat(decayFactor));
  const updated = f32x4.add(decayed, step);
  v128.store(p, updated);
  return updated;
}

/** AdamW over n elements; the new masters also go to `out` as bfloat16. */
export function adamWToBfloat16(p: usize, m: usize, v: usize, g: usize, out: usize, n: usize): void {
  const end = out + (n << 1);
  while (out < end) {
    const low = adamW4(p, m, v, g);
    const high = adamW4(p + 16, m + 16, v + 16, g + 16);
    storeBfloat16(out, low, high);
    p += 32;
    m += 32;
    v += 32;
    g += 32;
    out += 16;
  }
}

/** AdamW over n elements; the new masters also go to `out` as float32. */
export function adamWToFloat32(p: usize, m: usize, v: usize, g: usize, out: usize, n: usize): void {
  const end = out + (n << 2);
  while (out < end) {
    v128.store(out, adamW4(p, m, v, g));
    p += 16;
    m += 16;
    v += 16;
    g += 16;
    out += 16;
  }
}
