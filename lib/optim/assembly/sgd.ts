import { storeBfloat16 } from "./lib/bfloat16";

// Factors of the calls that follow: set once for the blocks of a region.
let gradientScale: f32 = 1;
let coupledDecay: f32 = 0;
let momentum: f32 = 0;
let oneMinusDampening: f32 = 1;
let gradientShare: f32 = 0;
let bufferShare: f32 = 1;
let negativeLearningRate: f32 = 0;

/**
 * @param newOneMinusDampening 1 for the first update, which begins the buffer with the gradient itself
 * @param newGradientShare of the gradient in the direction: 1 for Nesterov's momentum, else 0
 * @param newBufferShare of the buffer in the direction: the momentum for Nesterov's, else 1
 */
export function setSgdFactors(
  newGradientScale: f32,
  newCoupledDecay: f32,
  newMomentum: f32,
  newOneMinusDampening: f32,
  newGradientShare: f32,
  newBufferShare: f32,
  newNegativeLearningRate: f32,
): void {
  gradientScale = newGradientScale;
  coupledDecay = newCoupledDecay;
  momentum = newMomentum;
  oneMinusDampening = newOneMinusDampening;
  gradientShare = newGradientShare;
  bufferShare = newBufferShare;
  negativeLearningRate = newNegativeLearningRate;
}

/**
 * SGD of 4 elements, in the order of operations of torch.optim.SGD. Reads and writes masters and buffer;
 * returns the new masters. The buffer may be the gradient.
 */
// @ts-ignore: decorator
@inline
function sgd4(p: usize, b: usize, g: usize): v128 {
  const master = v128.load(p);
  const gradient = f32x4.add(
    f32x4.mul(v128.load(g), f32x4.splat(gradientScale)),
    f32x4.mul(master, f32x4.splat(coupledDecay)),
  );
  const buffer = f32x4.add(
    f32x4.mul(v128.load(b), f32x4.splat(momentum)),
    f32x4.mul(gradient, f32x4.splat(oneMinusDampening)),
  );
  v128.store(b, buffer);
  const direction = f32x4.add(
    f32x4.mul(gradient, f32x4.splat(gradientShare)),
    f32x4.mul(buffer, f32x4.splat(bufferShare)),
  );
  const updated = f32x4.add(master, f32x4.mul(direction, f32x4.splat(negativeLearningRate)));
  v128.store(p, updated);
  return updated;
}

/** SGD over n elements; the new masters also go to `out` as bfloat16. */
export function sgdToBfloat16(p: usize, b: usize, g: usize, out: usize, n: usize): void {
  const end = out + (n << 1);
  while (out < end) {
    const low = sgd4(p, b, g);
    const high = sgd4(p + 16, b + 16, g + 16);
    storeBfloat16(out, low, high);
    p += 32;
    b += 32;
    g += 32;
    out += 16;
  }
}

/** SGD over n elements; the new masters also go to `out` as float32. */
export function sgdToFloat32(p: usize, b: usize, g: usize, out: usize, n: usize): void {
  const end = out + (n << 2);
  while (out < end) {
    v128.store(out, sgd4(p, b, g));
    p += 16;
    b += 16;
    g += 16;
    out += 16;
  }
}
