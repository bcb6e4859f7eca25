const float32AbsMask: i32 = 0x7fffffff;
const float32InfinityBits: i32 = 0x7f800000;

/** Widens 4 bfloat16 values in the low half of `bits` to float32; exact. */
// @ts-ignore: decorator
@inline
export function widenLow(bits: v128): v128 {
  return i32x4.shl(i32x4.extend_low_i16x8_u(bits), 16);
}

// @ts-ignore: decorator
@inline
export function widenHigh(bits: v128): v128 {
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
export function storeBfloat16(out: usize, low: v128, high: v128): void {
  v128.store(out, i16x8.narrow_i32x4_u(narrow(low), narrow(high)));
}
