// AdamW whose moments are bytes: codes of numbers between -1 and 1, times the largest magnitude of their chunk.

// Where tables lie, and two arrays of a chunk's float32 numbers; set once for the chunks of a region.
let signedValues: usize = 0;
let unsignedValues: usize = 0;
let signedMidpoints: usize = 0;
let unsignedMidpoints: usize = 0;
let signedStarts: usize = 0;
let unsignedStarts: usize = 0;
let firsts: usize = 0;
let seconds: usize = 0;

let gradientScale: f32 = 1;
let decayFactor: f32 = 1;
let beta1: f32 = 0;
let oneMinusBeta1: f32 = 1;
let beta2: f32 = 0;
let oneMinusBeta2: f32 = 1;
let negativeStepSize: f32 = 0;
let epsilon: f32 = 0;

const float32AbsMask: i32 = 0x7fffffff;
/** Bits of a float32 that the tables of starts go by: exponent and 8 bits of fraction, from 2^-24 on. */
const startShift: i32 = 15;
const firstStart: i32 = 103 << 8;
/** Code of 0 in the signed map; below it are the negative numbers. */
const signedZero: i32 = 127;

/** @param values of 256 codes; midpoints and starts are of the magnitudes */
export function setAdamW8bitTables(
  newSignedValues: usize,
  newUnsignedValues: usize,
  newSignedMidpoints: usize,
  newUnsignedMidpoints: usize,
  newSignedStarts: usize,
  newUnsignedStarts: usize,
  newFirsts: usize,
  newSeconds: usize,
): void {
  signedValues = newSignedValues;
  unsignedValues = newUnsignedValues;
  signedMidpoints = newSignedMidpoints;
  unsignedMidpoints = newUnsignedMidpoints;
  signedStarts = newSignedStarts;
  unsignedStarts = newUnsignedStarts;
  firsts = newFirsts;
  seconds = newSeconds;
}

/**
 * @param newNegativeStepSize -learningRate * biasCorrection2Sqrt / biasCorrection1
 * @param newEpsilon epsilon * biasCorrection2Sqrt
 * @param newDecayFactor 1 - learningRate * weightDecay
 */
export function setAdamW8bitFactors(
  newGradientScale: f32,
  newDecayFactor: f32,
  newBeta1: f32,
  newOneMinusBeta1: f32,
  newBeta2: f32,
  newOneMinusBeta2: f32,
  newNegativeStepSize: f32,
  newEpsilon: f32,
): void {
  gradientScale = newGradientScale;
  decayFactor = newDecayFactor;
  beta1 = newBeta1;
  oneMinusBeta1 = newOneMinusBeta1;
  beta2 = newBeta2;
  oneMinusBeta2 = newOneMinusBeta2;
  negativeStepSize = newNegativeStepSize;
  epsilon = newEpsilon;
}

/**
 * The magnitude of the map that is nearest to `magnitude`, of two equally near the smaller one. No two midpoints have
 * the same start, so one comparison decides.
 */
// @ts-ignore: decorator
@inline
function nearest(magnitude: f32, midpoints: usize, starts: usize): i32 {
  const start = max<i32>((reinterpret<i32>(magnitude) >> startShift) - firstStart, 0);
  const index: i32 = load<u8>(starts + start);
  return index + i32(magnitude > load<f32>(midpoints + (index << 2)));
}

// @ts-ignore: decorator
@inline
function largestLane(values: v128): f32 {
  const pairs = f32x4.max(values, v128.shuffle<i32>(values, values, 2, 3, 0, 1));
  const all = f32x4.max(pairs, v128.shuffle<i32>(pairs, pairs, 1, 0, 3, 2));
  return f32x4.extract_lane(all, 0);
}

/** What the codes of a chunk stand for, but for the factor. */
function readCodes(codes: usize, values: usize, out: usize, n: usize): void {
  const end = codes + n;
  while (codes < end) {
    store<f32>(out, load<f32>(values + ((<usize>load<u8>(codes)) << 2)));
    codes++;
    out += 4;
  }
}

/**
 * AdamW of a chunk of at most 256 elements, n a multiple of 4, in the order of operations of bitsandbytes' blockwise
 * 8-bit AdamW: the step is made with moments that are not yet rounded. Reads and writes masters, codes and factors.
 */
export function adamW8bit(
  p: usize,
  g: usize,
  codes1: usize,
  absmax1: usize,
  codes2: usize,
  absmax2: usize,
  n: usize,
): void {
  readCodes(codes1, signedValues, firsts, n);
  readCodes(codes2, unsignedValues, seconds, n);
  const factor1 = f32x4.splat(load<f32>(absmax1));
  const factor2 = f32x4.splat(load<f32>(absmax2));
  let largest1 = f32x4.splat(0);
  let largest2 = f32x4.splat(0);
  const bytes = n << 2;
  for (let at: usize = 0; at < bytes; at += 16) {
    const gradient = f32x4.mul(v128.load(g + at), f32x4.splat(gradientScale));
    const first = f32x4.add(
      f32x4.mul(f32x4.mul(v128.load(firsts + at), factor1), f32x4.splat(beta1)),
      f32x4.mul(f32x4.splat(oneMinusBeta1), gradient),
    );
    const second = f32x4.add(
      f32x4.mul(f32x4.mul(v128.load(seconds + at), factor2), f32x4.splat(beta2)),
      f32x4.mul(f32x4.mul(f32x4.splat(oneMinusBeta2), gradient), gradient),
    );
    v128.store(firsts + at, first);
    v128.store(seconds + at, second);
    largest1 = f32x4.max(largest1, f32x4.abs(first));
    largest2 = f32x4.max(largest2, second);
    const denominator = f32x4.add(f32x4.sqrt(second), f32x4.splat(epsilon));
    const step = f32x4.mul(f32x4.splat(negativeStepSize), f32x4.div(first, denominator));
    const moved = f32x4.add(v128.load(p + at), step);
    v128.store(p + at, f32x4.mul(moved, f32x4.splat(decayFactor)));
  }
  const newFactor1 = largestLane(largest1);
  const newFactor2 = largestLane(largest2);
  store<f32>(absmax1, newFactor1);
  store<f32>(absmax2, newFactor2);
  // Of a chunk of zeros the quotients are no numbers.
  const divisor1: f32 = newFactor1 == 0 ? 1 : newFactor1;
  const divisor2: f32 = newFactor2 == 0 ? 1 : newFactor2;
  for (let at: usize = 0; at < bytes; at += 16) {
    v128.store(firsts + at, f32x4.div(v128.load(firsts + at), f32x4.splat(divisor1)));
    v128.store(seconds + at, f32x4.div(v128.load(seconds + at), f32x4.splat(divisor2)));
  }
  for (let i: usize = 0; i < n; i++) {
    const first = load<f32>(firsts + (i << 2));
    const magnitude = reinterpret<f32>(reinterpret<i32>(first) & float32AbsMask);
    const index = nearest(magnitude, signedMidpoints, signedStarts);
    // A negative number stays one: it is not rounded to 0, and the map has no -1.
    const negative = signedZero - min<i32>(max<i32>(index, 1), signedZero);
    store<u8>(codes1 + i, <u8>select<i32>(negative, signedZero + index, first < 0));
    const second = load<f32>(seconds + (i << 2));
    store<u8>(codes2 + i, <u8>nearest(second, unsignedMidpoints, unsignedStarts));
  }
}
