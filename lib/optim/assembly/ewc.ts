// Elastic weight consolidation: a quadratic pull of each weight to where it was, by its Fisher information.

/**
 * sum[i] += factor * (fisher[i] * (p[i] - anchor[i]))
 *
 * @returns the sum of fisher * (p - anchor)^2 in float64. Lane j of 4 sums the elements whose index is j modulo 4, in
 *   order; then (l0 + l2) + (l1 + l3)
 */
export function addPenalty(
  sum: usize,
  p: usize,
  fisher: usize,
  anchor: usize,
  n: usize,
  factor: f32,
): f64 {
  const factors = f32x4.splat(factor);
  let lanes01 = f64x2.splat(0);
  let lanes23 = f64x2.splat(0);
  const end = sum + (n << 2);
  while (sum < end) {
    const weights = v128.load(fisher);
    const distance = f32x4.sub(v128.load(p), v128.load(anchor));
    const pull = f32x4.mul(weights, distance);
    v128.store(sum, f32x4.add(v128.load(sum), f32x4.mul(factors, pull)));
    const highPull = v128.shuffle<i64>(pull, pull, 1, 1);
    const highDistance = v128.shuffle<i64>(distance, distance, 1, 1);
    lanes01 = f64x2.add(
      lanes01,
      f64x2.mul(f64x2.promote_low_f32x4(pull), f64x2.promote_low_f32x4(distance)),
    );
    lanes23 = f64x2.add(
      lanes23,
      f64x2.mul(f64x2.promote_low_f32x4(highPull), f64x2.promote_low_f32x4(highDistance)),
    );
    sum += 16;
    p += 16;
    fisher += 16;
    anchor += 16;
  }
  const lanes = f64x2.add(lanes01, lanes23);
  return f64x2.extract_lane(lanes, 0) + f64x2.extract_lane(lanes, 1);
}

/** Sum in float64, in lanes as those of addPenalty. */
export function sumOf(values: usize, n: usize): f64 {
  let lanes01 = f64x2.splat(0);
  let lanes23 = f64x2.splat(0);
  const end = values + (n << 2);
  while (values < end) {
    const four = v128.load(values);
    lanes01 = f64x2.add(lanes01, f64x2.promote_low_f32x4(four));
    lanes23 = f64x2.add(
      lanes23,
      f64x2.promote_low_f32x4(v128.shuffle<i64>(four, four, 1, 1)),
    );
    values += 16;
  }
  const lanes = f64x2.add(lanes01, lanes23);
  return f64x2.extract_lane(lanes, 0) + f64x2.extract_lane(lanes, 1);
}

/** values[i] *= factor */
export function scaleBy(values: usize, n: usize, factor: f32): void {
  const factors = f32x4.splat(factor);
  const end = values + (n << 2);
  while (values < end) {
    v128.store(values, f32x4.mul(v128.load(values), factors));
    values += 16;
  }
}
