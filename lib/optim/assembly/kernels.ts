// Loops of a reducer shard over its wasm memory, 128-bit SIMD. Every `n` counts elements and is a
// multiple of 8; every pointer is 16-byte aligned. Nothing here allocates: lib/optim/memory-map.ts
// decides where arrays lie. Multiplications and additions are never contracted, so a result has the
// same bits on every processor, and equals the scalar formula rounded to float32 after each operation.
// asconfig.json beside this file holds the compiler's flags: no runtime, SIMD, one imported shared memory.

const float32AbsMask: i32 = 0x7fffffff;
const float32InfinityBits: i32 = 0x7f800000;

/** Widens 4 bfloat16 values in the low half of `bits` to float32; exact. */
// @ts-ignore: decorator
@inline
function widenLow(bits: v128): v128 {
  return i32x4.shl(i32x4.extend_low_i16x8_u(bits), 16);
}

// @ts-ignore: decorator
@inline
function widenHigh(bits: v128): v128 {
  return i32x4.shl(i32x4.extend_high_i16x8_u(bits), 16);
}

/** bfloat16 bits of 4 float32 values, each in the low half of an i32 lane; nearest, ties to even. */
// @ts-ignore: decorator
@inline
function narrow(values: v128): v128 {
  const high = i32x4.shr_u(values, 16);
  const odd = v128.and(high, i32x4.splat(1));
  const rounded = i32x4.shr_u(i32x4.add(values, i32x4.add(odd, i32x4.splat(0x7fff))), 16);
  // Rounding a NaN's payload could carry into infinity, so a NaN is truncated and made quiet.
  const isNan = i32x4.gt_s(
    v128.and(values, i32x4.splat(float32AbsMask)),
    i32x4.splat(float32InfinityBits),
  );
  return v128.bitselect(v128.or(high, i32x4.splat(0x40)), rounded, isNan);
}

// @ts-ignore: decorator
@inline
function storeBfloat16(out: usize, low: v128, high: v128): void {
  v128.store(out, i16x8.narrow_i32x4_u(narrow(low), narrow(high)));
}

/** sum[i] = wire[i] */
export function setBfloat16(sum: usize, wire: usize, n: usize): void {
  const end = wire + (n << 1);
  while (wire < end) {
    const bits = v128.load(wire);
    v128.store(sum, widenLow(bits));
    v128.store(sum, widenHigh(bits), 16);
    wire += 16;
    sum += 32;
  }
}

/** sum[i] += wire[i] */
export function addBfloat16(sum: usize, wire: usize, n: usize): void {
  const end = wire + (n << 1);
  while (wire < end) {
    const bits = v128.load(wire);
    v128.store(sum, f32x4.add(v128.load(sum), widenLow(bits)));
    v128.store(sum, f32x4.add(v128.load(sum, 16), widenHigh(bits)), 16);
    wire += 16;
    sum += 32;
  }
}

/** sum[i] += wire[i] */
export function addFloat32(sum: usize, wire: usize, n: usize): void {
  const end = wire + (n << 2);
  while (wire < end) {
    v128.store(sum, f32x4.add(v128.load(sum), v128.load(wire)));
    v128.store(sum, f32x4.add(v128.load(sum, 16), v128.load(wire, 16)), 16);
    wire += 32;
    sum += 32;
  }
}

/**
 * Sum of squares in float64. Lane j of 8 sums the elements whose index is j modulo 8, in order; then
 * ((l0+l4) + (l2+l6)) + ((l1+l5) + (l3+l7)): a fixed tree, so the same bits always.
 */
export function sumOfSquares(values: usize, n: usize): f64 {
  let lanes01 = f64x2.splat(0);
  let lanes23 = f64x2.splat(0);
  let lanes45 = f64x2.splat(0);
  let lanes67 = f64x2.splat(0);
  const end = values + (n << 2);
  while (values < end) {
    const low = v128.load(values);
    const high = v128.load(values, 16);
    const v01 = f64x2.promote_low_f32x4(low);
    const v23 = f64x2.promote_low_f32x4(v128.shuffle<i64>(low, low, 1, 1));
    const v45 = f64x2.promote_low_f32x4(high);
    const v67 = f64x2.promote_low_f32x4(v128.shuffle<i64>(high, high, 1, 1));
    lanes01 = f64x2.add(lanes01, f64x2.mul(v01, v01));
    lanes23 = f64x2.add(lanes23, f64x2.mul(v23, v23));
    lanes45 = f64x2.add(lanes45, f64x2.mul(v45, v45));
    lanes67 = f64x2.add(lanes67, f64x2.mul(v67, v67));
    values += 32;
  }
  const sum = f64x2.add(f64x2.add(lanes01, lanes45), f64x2.add(lanes23, lanes67));
  return f64x2.extract_lane(sum, 0) + f64x2.extract_lane(sum, 1);
}

// Factors of the update in progress: set once an update instead of travelling through every call.
let gradientScale: f32 = 1;
let decayFactor: f32 = 1;
let oneMinusBeta1: f32 = 0;
let beta2: f32 = 0;
let oneMinusBeta2: f32 = 0;
let negativeStepSize: f32 = 0;
let biasCorrection2Sqrt: f32 = 1;
let epsilon: f32 = 0;

export function setAdamWFactors(
  newGradientScale: f32,
  newOneMinusBeta1: f32,
  newBeta2: f32,
  newOneMinusBeta2: f32,
  newNegativeStepSize: f32,
  newBiasCorrection2Sqrt: f32,
  newEpsilon: f32,
): void {
  gradientScale = newGradientScale;
  oneMinusBeta1 = newOneMinusBeta1;
  beta2 = newBeta2;
  oneMinusBeta2 = newOneMinusBeta2;
  negativeStepSize = newNegativeStepSize;
  biasCorrection2Sqrt = newBiasCorrection2Sqrt;
  epsilon = newEpsilon;
}

/** 1 - learningRate * weightDecay for the elements of the calls that follow. */
export function setDecayFactor(newDecayFactor: f32): void {
  decayFactor = newDecayFactor;
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

let momentum: f32 = 0;
let coupledDecay: f32 = 0;
let negativeLearningRate: f32 = 0;

export function setSgdFactors(
  newGradientScale: f32,
  newMomentum: f32,
  newNegativeLearningRate: f32,
): void {
  gradientScale = newGradientScale;
  momentum = newMomentum;
  negativeLearningRate = newNegativeLearningRate;
}

/** Weight decay added to the gradient of the elements of the calls that follow. */
export function setCoupledDecay(newCoupledDecay: f32): void {
  coupledDecay = newCoupledDecay;
}

/** SGD with momentum over n elements, in the order of operations of torch.optim.SGD. */
export function sgd(p: usize, m: usize, g: usize, n: usize): void {
  const end = p + (n << 2);
  while (p < end) {
    const master = v128.load(p);
    const gradient = f32x4.add(
      f32x4.mul(v128.load(g), f32x4.splat(gradientScale)),
      f32x4.mul(master, f32x4.splat(coupledDecay)),
    );
    const velocity = f32x4.add(f32x4.mul(v128.load(m), f32x4.splat(momentum)), gradient);
    v128.store(m, velocity);
    v128.store(p, f32x4.add(master, f32x4.mul(velocity, f32x4.splat(negativeLearningRate))));
    p += 16;
    m += 16;
    g += 16;
  }
}

/** out[i] = bfloat16(p[i]) */
export function toBfloat16(p: usize, out: usize, n: usize): void {
  const end = out + (n << 1);
  while (out < end) {
    storeBfloat16(out, v128.load(p), v128.load(p, 16));
    p += 32;
    out += 16;
  }
}
