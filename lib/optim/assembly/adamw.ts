import { storeBfloat16 } from "./lib/bfloat16";

// Factors of the calls that follow: set once for the blocks of a region instead of travelling through every call.
let gradientScale: f32 = 1;
let decayFactor: f32 = 1;
let oneMinusBeta1: f32 = 0;
let beta2: f32 = 0;
let oneMinusBeta2: f32 = 0;
let negativeStepSize: f32 = 0;
let biasCorrection2Sqrt: f32 = 1;
let epsilon: f32 = 0;

/** @param newDecayFactor 1 - learningRate * weightDecay */
export function setAdamWFactors(
  newGradientScale: f32,
  newDecayFactor: f32,
  newOneMinusBeta1: f32,
  newBeta2: f32,
  newOneMinusBeta2: f32,
  newNegativeStepSize: f32,
  newBiasCorrection2Sqrt: f32,
  newEpsilon: f32,
): void {
  gradientScale = newGradientScale;
  decayFactor = newDecayFactor;
  oneMinusBeta1 = newOneMinusBeta1;
  beta2 = newBeta2;
  oneMinusBeta2 = newOneMinusBeta2;
  negativeStepSize = newNegativeStepSize;
  biasCorrection2Sqrt = newBiasCorrection2Sqrt;
  epsilon = newEpsilon;
}

/**
 * AdamW of 4 elements (Loshchilov and Hutter 2019, in the order of operations of torch.optim.AdamW).
 * Reads and writes masters and both moments; returns the new masters.
 */
// @ts-ignore: decorator
@inline
function adamW4(p: usize, m: usize, v: usize, g: usize): v128 {
  const gradient = f32x4.mul(v128.load(g), f32x4.splat(gradientScale));
  const oldFirst = v128.load(m);
  const first = f32x4.add(
    oldFirst,
    f32x4.mul(f32x4.sub(gradient, oldFirst), f32x4.splat(oneMinusBeta1)),
  );
  v128.store(m, first);
  const second = f32x4.add(
    f32x4.mul(v128.load(v), f32x4.splat(beta2)),
    f32x4.mul(f32x4.mul(gradient, f32x4.splat(oneMinusBeta2)), gradient),
  );
  v128.store(v, second);
  const denominator = f32x4.add(
    f32x4.div(f32x4.sqrt(second), f32x4.splat(biasCorrection2Sqrt)),
    f32x4.splat(epsilon),
  );
  const decayed = f32x4.mul(v128.load(p), f32x4.splat(decayFactor));
  const updated = f32x4.add(
    decayed,
    f32x4.div(f32x4.mul(first, f32x4.splat(negativeStepSize)), denominator),
  );
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
