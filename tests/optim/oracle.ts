/** Scalar arithmetic in plain JavaScript, as the shard kernels must have it bit for bit. */

const word = new Uint32Array(1);
const float = new Float32Array(word.buffer);

/** bfloat16 bits of a float32, found by comparing distances rather than by adding a bias. */
export function bfloat16Bits(bits: number): number {
  word[0] = bits;
  if (Number.isNaN(float[0])) return (bits >>> 16) | 0x40;
  const down = bits >>> 16;
  const remainder = bits & 0xffff;
  // The next bfloat16 away from zero is one bit pattern up, infinity included.
  if (remainder > 0x8000) return down + 1;
  if (remainder < 0x8000) return down;
  return down % 2 === 0 ? down : down + 1;
}

export function bfloat16Value(bits: number): number {
  word[0] = bits << 16;
  return float[0] as number;
}

/** float16 bits of a float32: the nearest multiple of the step that its exponent has, of two the even one. */
export function float16Bits(bits: number): number {
  word[0] = bits;
  const magnitude = Math.abs(float[0] as number);
  const sign = (bits >>> 16) & 0x8000;
  if (Number.isNaN(magnitude)) return sign | 0x7e00 | ((bits >>> 13) & 0x3ff);
  const exponent = Math.max(-14, ((bits >>> 23) & 0xff) - 127);
  if (exponent > 15) return sign | 0x7c00;
  const exact = magnitude / 2 ** (exponent - 10);
  const down = Math.floor(exact);
  const isUp = exact - down > 0.5 || (exact - down === 0.5 && down % 2 === 1);
  // Numbers of one step follow each other, subnormal ones from 0, and carry into the next exponent.
  return sign | ((exponent + 14) * 1024 + down + (isUp ? 1 : 0));
}

export function float16Value(bits: number): number {
  const [exponent, fraction] = [(bits >>> 10) & 0x1f, bits & 0x3ff];
  const sign = bits & 0x8000 ? -1 : 1;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (exponent === 0 ? fraction : 1024 + fraction) * 2 ** (Math.max(1, exponent) - 25);
}

interface AdamWOracleStep {
  readonly learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  readonly weightDecay: number;
  readonly updateNumber: number;
}

interface AdamWElement {
  p: number;
  m: number;
  v: number;
}

/**
 * torch.optim.AdamW of one element.
 *
 * @param round what happens to the result of each operation: Math.fround for float32, identity for
 *   float64. A float64 +, -, *, / or square root of float32 values, rounded once more, is the correctly
 *   rounded float32 result.
 */
export function adamWElement(
  state: AdamWElement,
  gradient: number,
  step: AdamWOracleStep,
  round: (value: number) => number,
): AdamWElement {
  const biasCorrection1 = 1 - step.beta1 ** step.updateNumber;
  const biasCorrection2 = 1 - step.beta2 ** step.updateNumber;
  const decayFactor = round(1 - step.learningRate * step.weightDecay);
  const stepSize = round(step.learningRate / biasCorrection1);
  const p = round(state.p * decayFactor);
  const m = round(state.m + round(round(gradient - state.m) * round(1 - step.beta1)));
  const v = round(
    round(state.v * round(step.beta2)) + round(round(gradient * round(1 - step.beta2)) * gradient),
  );
  const denominator = round(
    round(round(Math.sqrt(v)) / round(Math.sqrt(biasCorrection2))) + round(step.epsilon),
  );
  return { p: round(p - round(round(m * stepSize) / denominator)), m, v };
}

/** float64 sum of squares in the kernels' fixed tree of 8 lanes. */
export function sumOfSquares(values: Float32Array): number {
  const lanes = new Float64Array(8);
  values.forEach((value, i) => {
    lanes[i % 8] = (lanes[i % 8] as number) + value * value;
  });
  const [l0, l1, l2, l3, l4, l5, l6, l7] = lanes as unknown as [
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  return l0 + l4 + (l2 + l6) + (l1 + l5 + (l3 + l7));
}
