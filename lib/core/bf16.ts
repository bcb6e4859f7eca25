/**
 * Array conversions between float32 and the two half types, bfloat16 and IEEE binary16 (float16).
 *
 * Halves are held as their bits in a Uint16Array. Narrowing rounds to nearest, ties to even, and
 * overflows to infinity, as PyTorch's and TensorFlow's casts do. A NaN stays a quiet NaN with its
 * sign and the top bits of its payload. Widening is exact.
 */

function wordsOf(values: Float32Array): Uint32Array {
  return new Uint32Array(values.buffer, values.byteOffset, values.length);
}

function requireRoom(wanted: number, got: number): void {
  if (got < wanted) throw new RangeError(`The output holds ${got} elements, ${wanted} are needed.`);
}

/** Narrows to bfloat16 bits. `output` may be longer than `values`; only the prefix is written. */
export function float32ToBfloat16(
  values: Float32Array,
  output: Uint16Array = new Uint16Array(values.length),
): Uint16Array {
  requireRoom(values.length, output.length);
  const words = wordsOf(values);
  for (let i = 0; i < words.length; i++) {
    const word = words[i] as number;
    output[i] =
      (word & 0x7fffffff) > 0x7f800000
        ? (word >>> 16) | 0x40
        : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
  return output;
}

/** Widens bfloat16 bits. `output` may be longer than `bits`; only the prefix is written. */
export function bfloat16ToFloat32(
  bits: Uint16Array,
  output: Float32Array = new Float32Array(bits.length),
): Float32Array {
  requireRoom(bits.length, output.length);
  const words = wordsOf(output);
  for (let i = 0; i < bits.length; i++) words[i] = (bits[i] as number) << 16;
  return output;
}

/** Narrows to float16 bits. `output` may be longer than `values`; only the prefix is written. */
export function float32ToFloat16(
  values: Float32Array,
  output: Uint16Array = new Uint16Array(values.length),
): Uint16Array {
  requireRoom(values.length, output.length);
  const words = wordsOf(values);
  for (let i = 0; i < words.length; i++) output[i] = float16BitsOf(words[i] as number);
  return output;
}

/** Widens float16 bits. `output` may be longer than `bits`; only the prefix is written. */
export function float16ToFloat32(
  bits: Uint16Array,
  output: Float32Array = new Float32Array(bits.length),
): Float32Array {
  requireRoom(bits.length, output.length);
  const table = (float16Table ??= buildFloat16Table());
  const words = wordsOf(output);
  for (let i = 0; i < bits.length; i++) words[i] = table[bits[i] as number] as number;
  return output;
}

/** The float16 bits of the float32 whose bits are `word`. */
function float16BitsOf(word: number): number {
  const sign = (word >>> 16) & 0x8000;
  const magnitude = word & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00 | ((magnitude >>> 13) & 0x3ff);
  if (magnitude >= 0x477ff000) return sign | 0x7c00; // 65520 and above round to infinity.
  if (magnitude >= 0x38800000) {
    // Normal: rebias the exponent from 127 to 15, then round away 13 bits of the significand.
    const rebased = magnitude - 0x38000000;
    return sign | ((rebased + 0xfff + ((rebased >>> 13) & 1)) >>> 13);
  }
  if (magnitude < 0x33000000) return sign; // Below half of the smallest subnormal.
  // Subnormal: a multiple of 2^-24.
  const shift = 126 - (magnitude >>> 23);
  const significand = (magnitude & 0x7fffff) | 0x800000;
  const quotient = significand >>> shift;
  const remainder = significand & ((1 << shift) - 1);
  const half = 1 << (shift - 1);
  const roundsUp = remainder > half || (remainder === half && (quotient & 1) === 1);
  return sign | (quotient + (roundsUp ? 1 : 0));
}

/** Float32 bits of every float16: 256 KiB, built at the first use. */
let float16Table: Uint32Array | undefined;

function buildFloat16Table(): Uint32Array {
  const values = new Float32Array(65_536);
  const words = wordsOf(values);
  for (let bits = 0; bits < 65_536; bits++) {
    const sign = (bits & 0x8000) << 16;
    const exponent = (bits >>> 10) & 0x1f;
    const fraction = bits & 0x3ff;
    if (exponent === 0x1f) {
      words[bits] = sign | 0x7f800000 | (fraction << 13);
    } else if (exponent === 0) {
      values[bits] = fraction * 2 ** -24;
      words[bits] = (words[bits] as number) | sign;
    } else {
      words[bits] = sign | ((exponent + 112) << 23) | (fraction << 13);
    }
  }
  return words;
}
