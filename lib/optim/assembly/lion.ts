import { storeBfloat16 } from "./lib/bfloat16";

// Factors of the calls that follow: set once for the blocks of a region.
let gradientScale: f32 = 1;
let decayFactor: f32 = 1;
let beta1: f32 = 0;
let oneMinusBeta1: f32 = 1;
let beta2: f32 = 0;
let oneMinusBeta2: f32 = 1;
let learningRate: f32 = 0;

/** Everything but the sign of a float32. */
const float32AbsMask: i32 = 0x7fffffff;

/** @param newDecayFactor 1 - learningRate * weightDecay */
export function setLionFactors(
  newGradientScale: f32,
  newDecayFactor: f32,
  newBeta1: f32,
  newOneMinusBeta1: f32,
  newBeta2: f32,
  newOneMinusBeta2: f32,
  newLearningRate: f32,
): void {
  gradientScale = newGradientScale;
  decayFactor = newDecayFactor;
  beta1 = newBeta1;
  oneMinusBeta1 = newOneMinusBeta1;
  beta2 = newBeta2;
  oneMinusBeta2 = newOneMinusBeta2;
  learningRate = newLearningRate;
}

/**
 * Lion of 4 elements, in the order of operations of bitsandbytes. Reads and writes masters and momentum;
 * returns the new masters. A direction of 0 moves nothing.
 */
// @ts-ignore: decorator
@inline
function lion4(p: usize, m: usize, g: usize): v128 {
  const gradient = f32x4.mul(v128.load(g), f32x4.splat(gradientScale));
  const momentum = v128.load(m);
  const direction = f32x4.add(
    f32x4.mul(momentum, f32x4.splat(beta1)),
    f32x4.mul(gradient, f32x4.splat(oneMinusBeta1)),
  );
  // The rate with the direction's sign, or 0.
  const signed = v128.bitselect(
    f32x4.splat(learningRate),
    direction,
    i32x4.splat(float32AbsMask),
  );
  const step = v128.and(signed, f32x4.ne(direction, f32x4.splat(0)));
  const decayed = f32x4.mul(v128.load(p), f32x4.splat(decayFactor));
  const updated = f32x4.sub(decayed, step);
  v128.store(p, updated);
  v128.store(
    m,
    f32x4.add(
      f32x4.mul(momentum, f32x4.splat(beta2)),
      f32x4.mul(gradient, f32x4.splat(oneMinusBeta2)),
    ),
  );
  return updated;
}

/** Lion over n elements; the new masters also go to `out` as bfloat16. */
export function lionToBfloat16(p: usize, m: usize, g: usize, out: usize, n: usize): void {
  const end = out + (n << 1);
  while (out < end) {
    const low = lion4(p, m, g);
    const high = lion4(p + 16, m + 16, g + 16);
    storeBfloat16(out, low, high);
    p += 32;
    m += 32;
    g += 32;
    out += 16;
  }
}

/** Lion over n elements; the new masters also go to `out` as float32. */
export function lionToFloat32(p: usize, m: usize, g: usize, out: usize, n: usize): void {
  const end = out + (n << 2);
  while (out < end) {
    v128.store(out, lion4(p, m, g));
    p += 16;
    m += 16;
    g += 16;
    out += 16;
  }
}
