// Loops of a reducer shard over its wasm memory, 128-bit SIMD. Every `n` counts elements and is a
// multiple of 8; every pointer is 16-byte aligned. Nothing here allocates: lib/optim/memory-map.ts
// decides where arrays lie. Multiplications and additions are never contracted, so a result has the
// same bits on every processor, and equals the scalar formula rounded to float32 after each operation.
// The files of this folder are compiled into one module, each optimizer's update in a file of its own;
// `lib` holds what they share, and asconfig.json the flags: no runtime, SIMD, one imported shared memory.
import { storeBfloat16, widenHigh, widenLow } from "./lib/bfloat16";
import { storeFloat16, widenFloat16High, widenFloat16Low } from "./lib/float16";

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

/** sum[i] = wire[i] */
export function setFloat16(sum: usize, wire: usize, n: usize): void {
  const end = wire + (n << 1);
  while (wire < end) {
    const bits = v128.load(wire);
    v128.store(sum, widenFloat16Low(bits));
    v128.store(sum, widenFloat16High(bits), 16);
    wire += 16;
    sum += 32;
  }
}

/** sum[i] += wire[i] */
export function addFloat16(sum: usize, wire: usize, n: usize): void {
  const end = wire + (n << 1);
  while (wire < end) {
    const bits = v128.load(wire);
    v128.store(sum, f32x4.add(v128.load(sum), widenFloat16Low(bits)));
    v128.store(sum, f32x4.add(v128.load(sum, 16), widenFloat16High(bits)), 16);
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

/** out[i] = bfloat16(p[i]) */
export function toBfloat16(p: usize, out: usize, n: usize): void {
  const end = out + (n << 1);
  while (out < end) {
    storeBfloat16(out, v128.load(p), v128.load(p, 16));
    p += 32;
    out += 16;
  }
}

/** out[i] = float16(p[i]) */
export function toFloat16(p: usize, out: usize, n: usize): void {
  const end = out + (n << 1);
  while (out < end) {
    storeFloat16(out, v128.load(p), v128.load(p, 16));
    p += 32;
    out += 16;
  }
}
