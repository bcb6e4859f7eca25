// Adam's moments and direction, which AdamW, Adam and others have alike; each decays in its own way.

// Factors of the calls that follow: set once for the blocks of a region.
let oneMinusBeta1: f32 = 0;
let beta2: f32 = 0;
let oneMinusBeta2: f32 = 0;
let negativeStepSize: f32 = 0;
let biasCorrection2Sqrt: f32 = 1;
let epsilon: f32 = 0;

/** @param newNegativeStepSize -(learningRate / (1 - beta1 ** updateNumber)) */
export function setAdamFactors(
  newOneMinusBeta1: f32,
  newBeta2: f32,
  newOneMinusBeta2: f32,
  newNegativeStepSize: f32,
  newBiasCorrection2Sqrt: f32,
  newEpsilon: f32,
): void {
  oneMinusBeta1 = newOneMinusBeta1;
  beta2 = newBeta2;
  oneMinusBeta2 = newOneMinusBeta2;
  negativeStepSize = newNegativeStepSize;
  biasCorrection2Sqrt = newBiasCorrection2Sqrt;
  epsilon = newEpsilon;
}

/** Reads and writes both moments of 4 elements; returns what is added to their masters. */
// @ts-ignore: decorator
@inline
export function adamStep4(m: usize, v: usize, gradient: v128): v128 {
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
  return f32x4.div(f32x4.mul(first, f32x4.splat(negativeStepSize)), denominator);
}
