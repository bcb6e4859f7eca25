import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import {
  bfloat16ToFloat32,
  float16ToFloat32,
  float32ToBfloat16,
  float32ToFloat16,
} from "#lib/core/bf16";

const allBits = Uint16Array.from({ length: 65_536 }, (_, bits) => bits);

/** The value of a half by the definition of its format, in double precision. */
function valueOf(bits: number, exponentBits: number): number {
  const fractionBits = 15 - exponentBits;
  const bias = 2 ** (exponentBits - 1) - 1;
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> fractionBits) & (2 ** exponentBits - 1);
  const fraction = (bits & (2 ** fractionBits - 1)) / 2 ** fractionBits;
  if (exponent === 2 ** exponentBits - 1) return fraction === 0 ? sign * Infinity : NaN;
  if (exponent === 0) return sign * fraction * 2 ** (1 - bias);
  return sign * (1 + fraction) * 2 ** (exponent - bias);
}

/** Nearest half to a finite float32 by search over the positive halves, ties to the even one. */
function nearestBits(value: number, exponentBits: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  const infinity = (2 ** exponentBits - 1) << (15 - exponentBits);
  let low = 0;
  let high = infinity;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (valueOf(middle, exponentBits) <= magnitude) low = middle;
    else high = middle;
  }
  // Infinity takes the place of the next value after the largest finite one.
  const lowValue = valueOf(low, exponentBits);
  const highValue =
    high === infinity
      ? lowValue + (lowValue - valueOf(low - 1, exponentBits))
      : valueOf(high, exponentBits);
  const [below, above] = [magnitude - lowValue, highValue - magnitude];
  return sign | (below < above || (below === above && low % 2 === 0) ? low : high);
}

const float32Bits = fc.integer({ min: 0, max: 0xffffffff });
const fromBits = (bits: number): Float32Array => new Float32Array(Uint32Array.of(bits).buffer);

for (const { name, exponentBits, widen, narrow } of [
  { name: "bfloat16", exponentBits: 8, widen: bfloat16ToFloat32, narrow: float32ToBfloat16 },
  { name: "float16", exponentBits: 5, widen: float16ToFloat32, narrow: float32ToFloat16 },
]) {
  test(`${name}: every half widens to the value that its format defines`, () => {
    const widened = widen(allBits);
    for (const bits of allBits) {
      assert.ok(Object.is(widened[bits], valueOf(bits, exponentBits)), `bits ${bits}`);
    }
  });

  test(`${name}: every half survives a round trip, NaNs as quiet NaNs of the same sign`, () => {
    const back = narrow(widen(allBits));
    const quietBit = 1 << (14 - exponentBits);
    for (const bits of allBits) {
      const isNaN = Number.isNaN(valueOf(bits, exponentBits));
      assert.equal(back[bits], isNaN ? bits | quietBit : bits);
    }
  });

  test(`${name}: narrowing rounds to nearest, ties to even`, () => {
    const check = (bits: number): void => {
      const value = fromBits(bits);
      if (!Number.isFinite(value[0])) return;
      assert.equal(narrow(value)[0], nearestBits(value[0] as number, exponentBits), `bits ${bits}`);
    };
    fc.assert(fc.property(float32Bits, check), { numRuns: 3000 });
    // Exact ties and their neighbours, at every half: midpoints between consecutive halves.
    for (let half = 0; half < 0x7f00; half += 37) {
      const [low, high] = [valueOf(half, exponentBits), valueOf(half + 1, exponentBits)];
      if (!Number.isFinite(high)) break;
      const middle = new Uint32Array(Float32Array.of((low + high) / 2).buffer)[0] as number;
      for (const bits of [middle - 1, middle, middle + 1]) if (bits >= 0) check(bits);
    }
  });

  test(`${name}: infinities, and overflow to them`, () => {
    const infinity = (2 ** exponentBits - 1) << (15 - exponentBits);
    const largest = Math.fround(3.4028234663852886e38);
    assert.deepEqual(
      [...narrow(Float32Array.of(Infinity, -Infinity, largest, -largest))],
      [infinity, infinity | 0x8000, infinity, infinity | 0x8000],
    );
  });

  test(`${name}: only the prefix of a longer output is written, a shorter one is refused`, () => {
    const output = new Uint16Array(3).fill(7);
    narrow(Float32Array.of(0, 0), output);
    assert.deepEqual([...output], [0, 0, 7]);
    assert.throws(() => narrow(new Float32Array(4), output), RangeError);
    assert.throws(() => widen(new Uint16Array(2), new Float32Array(1)), RangeError);
  });
}

test("float16: the borders that IEEE 754 names", () => {
  const values = [65504, 65519.99609375, 65520, 2 ** -24, 2 ** -25, 2 ** -25 * 1.0001, 2 ** -14];
  assert.deepEqual(
    [...float32ToFloat16(Float32Array.from(values))],
    [0x7bff, 0x7bff, 0x7c00, 1, 0, 1, 0x400],
  );
});
