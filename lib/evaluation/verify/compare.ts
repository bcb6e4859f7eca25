/** How far one tensor is from the recorded one. */
export interface Difference {
  readonly name: string;
  /** |actual - expected| / |expected|, Euclidean; Infinity where a value is not finite. */
  readonly relative: number;
  /** |expected|, or the floor where that is larger. */
  readonly scale: number;
}

/**
 * Gradients are compared on a scale of at least this share of the whole gradient's norm. Some are
 * zero in exact arithmetic, such as that of a key's bias, which softmax does not see: both sides then
 * hold rounding errors only.
 */
export const gradientFloor = 1e-3;

/** @param floor least number that the difference is divided by */
export function difference(
  name: string,
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  floor = 0,
): Difference {
  let squares = 0;
  for (let i = 0; i < expected.length; i++) {
    squares += ((actual[i] as number) - (expected[i] as number)) ** 2;
  }
  const scale = Math.max(norm(expected), floor);
  const relative = squares === 0 ? 0 : Math.sqrt(squares) / scale;
  const isComparable = actual.length === expected.length && Number.isFinite(relative);
  return { name, relative: isComparable ? relative : Number.POSITIVE_INFINITY, scale };
}

/** Euclidean, summed in float64. */
export function norm(values: ArrayLike<number>): number {
  let squares = 0;
  for (let i = 0; i < values.length; i++) squares += (values[i] as number) ** 2;
  return Math.sqrt(squares);
}

/** The rows of [rows, width] for which `keep` is 1. */
export function keptRows(values: Float32Array, keep: ArrayLike<number>): Float32Array {
  const width = values.length / keep.length;
  const kept = Array.from(keep, (flag, row) => (flag === 1 ? row : -1)).filter((row) => row >= 0);
  const out = new Float32Array(kept.length * width);
  kept.forEach((row, index) => {
    out.set(values.subarray(row * width, (row + 1) * width), index * width);
  });
  return out;
}
