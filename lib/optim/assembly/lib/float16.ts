// Float16 is IEEE binary16: 5 bits of exponent with bias 15, 10 of fraction. Where the exponents of both types are
// plain numbers, a value's bits differ by the bias alone, (127 - 15) << 23, and 13 bits of fraction.
const float32AbsMask: i32 = 0x7fffffff;
const float32InfinityBits: i32 = 0x7f800000;
const biasDifference: i32 = 0x38000000;
/** 2^16, of which and of all above half an infinity is made; what rounds to it from below carries into it. */
const overflowBits: i32 = 0x47800000;
/** 2^-14, below which a half is a multiple of 2^-24. */
const smallestNormalBits: i32 = 0x38800000;
/** A float32 of this magnitude moves in steps of 2^-24: adding it rounds to nearest even as a half does. */
const subnormalMagic: f32 = 0.5;

/** Widens 4 float16 bits, each in an i32 lane, to float32; exact. No arithmetic on subnormal float32 numbers. */
// @ts-ignore: decorator
@inline
function widen(bits: v128): v128 {
  const magnitude = v128.and(bits, i32x4.splat(0x7fff));
  const sign = i32x4.shl(v128.xor(bits, magnitude), 16);
  const normal = i32x4.add(i32x4.shl(magnitude, 13), i32x4.splat(biasDifference));
  const isSpecial = i32x4.ge_s(magnitude, i32x4.splat(0x7c00));
  const regular = i32x4.add(normal, v128.and(isSpecial, i32x4.splat(biasDifference)));
  const subnormal = f32x4.mul(f32x4.convert_i32x4_s(magnitude), f32x4.splat(5.9604644775390625e-8));
  const isSubnormal = i32x4.lt_s(magnitude, i32x4.splat(0x400));
  return v128.or(sign, v128.bitselect(subnormal, regular, isSubnormal));
}

/** Widens 4 float16 values in the low half of `bits` to float32; exact. */
// @ts-ignore: decorator
@inline
export function widenFloat16Low(bits: v128): v128 {
  return widen(i32x4.extend_low_i16x8_u(bits));
}

// @ts-ignore: decorator
@inline
export function widenFloat16High(bits: v128): v128 {
  return widen(i32x4.extend_high_i16x8_u(bits));
}

/**
 * Float16 bits of 4 float32 values, each in the low half of an i32 lane: nearest, ties to even, overflow to
 * infinity; a NaN stays a quiet one, with its sign and the top of its payload.
 */
// @ts-ignore: decorator
@inline
function narrow(values: v128): v128 {
  const magnitude = v128.and(values, i32x4.splat(float32AbsMask));
  const sign = i32x4.shr_u(v128.xor(values, magnitude), 16);
  const odd = v128.and(i32x4.shr_u(magnitude, 13), i32x4.splat(1));
  const rebased = i32x4.sub(magnitude, i32x4.splat(biasDifference));
  const normal = i32x4.shr_u(i32x4.add(i32x4.add(rebased, i32x4.splat(0xfff)), odd), 13);
  const magic = f32x4.splat(subnormalMagic);
  const subnormal = i32x4.sub(f32x4.add(magnitude, magic), magic);
  const isSubnormal = i32x4.lt_s(magnitude, i32x4.splat(smallestNormalBits));
  const finite = v128.bitselect(subnormal, normal, isSubnormal);
  const payload = v128.and(i32x4.shr_u(magnitude, 13), i32x4.splat(0x3ff));
  const isNan = i32x4.gt_s(magnitude, i32x4.splat(float32InfinityBits));
  const nan = v128.and(isNan, v128.or(payload, i32x4.splat(0x200)));
  const special = v128.or(nan, i32x4.splat(0x7c00));
  const overflows = i32x4.ge_s(magnitude, i32x4.splat(overflowBits));
  return v128.or(sign, v128.bitselect(special, finite, overflows));
}

// @ts-ignore: decorator
@inline
export function storeFloat16(out: usize, low: v128, high: v128): void {
  v128.store(out, i16x8.narrow_i32x4_u(narrow(low), narrow(high)));
}
