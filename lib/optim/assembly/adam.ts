import { adamStep4, setAdamFactors } from "./lib/adam";
import { storeBfloat16 } from "./lib/bfloat16";

let gradientScale: f32 = 1;
let coupledDecay: f32 = 0;

/** Factors of the calls that follow: set once for the blocks of a region. The others are those of `setAdamFactors`. */
export function setL2AdamFactors(
  newGradientScale: f32,
  newCoupledDecay: f32,
  oneMinusBeta1: f32,
  beta2: f32,
  oneMinusBeta2: f32,
  negativeStepSize: f32,
  biasCorrection2Sqrt: f32,
  epsilon: f32,
): void {
  gradientScale = newGradientScale;
  coupledDecay = newCoupledDecay;
  setAdamFactors(
    oneMinusBeta1,
    beta2,
    oneMinusBeta2,
    negativeStepSize,
    biasCorrection2Sqrt,
    epsilon,
  );
}

/**
 * Adam of 4 elements (Kingma and Ba 2015, in the order of operations of torch.optim.Adam): decay is added to
 * the gradient. Reads and writes masters and both moments; returns the new masters.
 */
// @ts-ignore: decorator
@inline
function adam4(p: usize, m: usize, v: usize, g: usize): v128 {
  const master = v128.load(p);
  const gradient = f32x4.add(
    f32x4.mul(v128.load(g), f32x4.splat(gradientScale)),
    f32x4.mul(master, f32x4.splat(coupledDecay)),
  );
  const updated = f32x4.add(master, adamStep4(m, v, gradient));
  v128.store(p, updated);
  return updated;
}

/** Adam over n elements; the new masters also go to `out` as bfloat16. */
export function adamToBfloat16(p: usize, m: usize, v: usize, g: usize, out: usize, n: usize): void {
  const end = out + (n << 1);
  while (out < end) {
    const low = adam4(p, m, v, g);
    const high = adam4(p + 16, m + 16, v + 16, g + 16);
    storeBfloat16(out, low, high);
    p += 32;
    m += 32;
    v += 32;
    g += 32;
    out += 16;
  }
}

/** Adam over n elements; the new masters also go to `out` as float32. */
export function adamToFloat32(p: usize, m: usize, v: usize, g: usize, out: usize, n: usize): void {
  const end = out + (n << 2);
  while (out < end) {
    v128.store(out, adam4(p, m, v, g));
    p += 16;
    m += 16;
    v += 16;
    g += 16;
    out += 16;
  }
}
