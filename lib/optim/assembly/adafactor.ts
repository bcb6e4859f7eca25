// Adafactor over a stretch of rows of one matrix. Rows may begin at any address that is a multiple of 4.

// Factors of the calls that follow: set once for the parts of a region, or of a tensor.
let gradientScale: f32 = 1;
let epsilon: f32 = 0;
let clipDivisor: f32 = 1;
let learningRate: f32 = 0;
let negativeDecay: f32 = 0;
let beta1: f32 = 0;
let oneMinusBeta1: f32 = 1;

export function setAdafactorGradient(newGradientScale: f32, newEpsilon: f32): void {
  gradientScale = newGradientScale;
  epsilon = newEpsilon;
}

/** @param newNegativeDecay -learningRate * weightDecay */
export function setAdafactorStep(
  newClipDivisor: f32,
  newLearningRate: f32,
  newNegativeDecay: f32,
  newBeta1: f32,
  newOneMinusBeta1: f32,
): void {
  clipDivisor = newClipDivisor;
  learningRate = newLearningRate;
  negativeDecay = newNegativeDecay;
  beta1 = newBeta1;
  oneMinusBeta1 = newOneMinusBeta1;
}

/** The upper two of 4 float32 values as float64. */
// @ts-ignore: decorator
@inline
function promoteHigh(values: v128): v128 {
  return f64x2.promote_low_f32x4(v128.shuffle<i64>(values, values, 1, 1));
}

/**
 * Sums of (gradient * scale)^2 + epsilon, which are float32, in float64: rowSums[r] = sum over columns,
 * columnSums[c] += sum over rows.
 */
export function adafactorSquares(
  g: usize,
  rowSums: usize,
  columnSums: usize,
  numRows: usize,
  numColumns: usize,
): void {
  const fourColumnsBytes = (numColumns & ~3) << 2;
  const rowBytes = numColumns << 2;
  const end = rowSums + (numRows << 3);
  while (rowSums < end) {
    let lanes01 = f64x2.splat(0);
    let lanes23 = f64x2.splat(0);
    let column = columnSums;
    const endOfFours = g + fourColumnsBytes;
    const endOfRow = g + rowBytes;
    while (g < endOfFours) {
      const gradient = f32x4.mul(v128.load(g), f32x4.splat(gradientScale));
      const square = f32x4.add(f32x4.mul(gradient, gradient), f32x4.splat(epsilon));
      const low = f64x2.promote_low_f32x4(square);
      const high = promoteHigh(square);
      lanes01 = f64x2.add(lanes01, low);
      lanes23 = f64x2.add(lanes23, high);
      v128.store(column, f64x2.add(v128.load(column), low));
      v128.store(column, f64x2.add(v128.load(column, 16), high), 16);
      g += 16;
      column += 32;
    }
    const lanes = f64x2.add(lanes01, lanes23);
    let row = f64x2.extract_lane(lanes, 0) + f64x2.extract_lane(lanes, 1);
    while (g < endOfRow) {
      const gradient: f32 = load<f32>(g) * gradientScale;
      const square = <f64>(gradient * gradient + epsilon);
      row += square;
      store<f64>(column, load<f64>(column) + square);
      g += 4;
      column += 8;
    }
    store<f64>(rowSums, row);
    rowSums += 8;
  }
}

/**
 * The gradient becomes (rowFactors[r] * columnFactors[c]) * (gradient * scale).
 * @returns its sum of squares in float64
 */
export function adafactorNormalise(
  g: usize,
  rowFactors: usize,
  columnFactors: usize,
  numRows: usize,
  numColumns: usize,
): f64 {
  const fourColumnsBytes = (numColumns & ~3) << 2;
  const rowBytes = numColumns << 2;
  const end = rowFactors + (numRows << 2);
  let lanes01 = f64x2.splat(0);
  let lanes23 = f64x2.splat(0);
  let rest: f64 = 0;
  while (rowFactors < end) {
    const rowFactor = load<f32>(rowFactors);
    let column = columnFactors;
    const endOfFours = g + fourColumnsBytes;
    const endOfRow = g + rowBytes;
    while (g < endOfFours) {
      const gradient = f32x4.mul(v128.load(g), f32x4.splat(gradientScale));
      const factor = f32x4.mul(f32x4.splat(rowFactor), v128.load(column));
      const update = f32x4.mul(factor, gradient);
      v128.store(g, update);
      const low = f64x2.promote_low_f32x4(update);
      const high = promoteHigh(update);
      lanes01 = f64x2.add(lanes01, f64x2.mul(low, low));
      lanes23 = f64x2.add(lanes23, f64x2.mul(high, high));
      g += 16;
      column += 16;
    }
    while (g < endOfRow) {
      const gradient: f32 = load<f32>(g) * gradientScale;
      const update: f32 = rowFactor * load<f32>(column) * gradient;
      store<f32>(g, update);
      rest += <f64>update * <f64>update;
      g += 4;
      column += 4;
    }
    rowFactors += 4;
  }
  const lanes = f64x2.add(lanes01, lanes23);
  return f64x2.extract_lane(lanes, 0) + f64x2.extract_lane(lanes, 1) + rest;
}

/**
 * The step of n elements, a multiple of 4, by what `adafactorNormalise` left of their gradient u. Reads and writes
 * masters and first moment, which may be u.
 */
export function adafactorStep(p: usize, m: usize, u: usize, n: usize): void {
  const end = p + (n << 2);
  while (p < end) {
    const clipped = f32x4.div(v128.load(u), f32x4.splat(clipDivisor));
    const update = f32x4.mul(clipped, f32x4.splat(learningRate));
    const moment = f32x4.add(
      f32x4.mul(v128.load(m), f32x4.splat(beta1)),
      f32x4.mul(update, f32x4.splat(oneMinusBeta1)),
    );
    v128.store(m, moment);
    const master = v128.load(p);
    const decayed = f32x4.add(master, f32x4.mul(master, f32x4.splat(negativeDecay)));
    v128.store(p, f32x4.sub(decayed, moment));
    p += 16;
    m += 16;
    u += 16;
  }
}
