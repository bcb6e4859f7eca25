/**
 * Seeded random numbers that depend on nothing but their coordinates: Philox4x32-10 of Salmon et
 * al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). A number is a function of (seed,
 * domain, stream, index), so a resumed run needs no saved generator state and no call disturbs another.
 */

/** Multipliers and Weyl increments of the paper's Table 2 and section 2.2. */
const multiplier0 = 0xd2511f53;
const multiplier1 = 0xcd9e8d57;
const keyIncrement0 = 0x9e3779b9;
const keyIncrement1 = 0xbb67ae85;
const numRounds = 10;
const two32 = 2 ** 32;

/** Upper 32 bits of the 64-bit product of two unsigned 32-bit integers. */
function multiplyHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  // Each partial sum stays under 2^34, so float64 arithmetic is exact.
  const middle = aHigh * bLow + Math.floor((aLow * bLow) / 0x10000);
  const carry = (middle % 0x10000) + aLow * bHigh;
  return (aHigh * bHigh + Math.floor(middle / 0x10000) + Math.floor(carry / 0x10000)) >>> 0;
}

/**
 * The Philox4x32-10 bijection.
 *
 * @param counter uint32 [4]
 * @param key uint32 [2]
 * @param out uint32 [4], overwritten; may be `counter` itself
 */
export function philox4x32(counter: Uint32Array, key: Uint32Array, out: Uint32Array): void {
  let [c0 = 0, c1 = 0, c2 = 0, c3 = 0] = counter;
  let [k0 = 0, k1 = 0] = key;
  for (let round = 0; round < numRounds; round++) {
    const high0 = multiplyHigh(multiplier0, c0);
    const low0 = Math.imul(multiplier0, c0);
    const high1 = multiplyHigh(multiplier1, c2);
    const low1 = Math.imul(multiplier1, c2);
    c0 = (high1 ^ c1 ^ k0) >>> 0;
    c1 = low1 >>> 0;
    c2 = (high0 ^ c3 ^ k1) >>> 0;
    c3 = low0 >>> 0;
    k0 = (k0 + keyIncrement0) >>> 0;
    k1 = (k1 + keyIncrement1) >>> 0;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

/** What a stream of numbers is for; two purposes never share numbers. Values are part of the format of a run. */
const randomDomains = Object.freeze({
  rowPermutation: 1,
  documentSplit: 2,
  initialization: 3,
  generation: 4,
  test: 0xffff,
});
type RandomDomain = keyof typeof randomDomains;

/**
 * Numbers of one (seed, domain, stream): the key is the seed (low word, high word), the counter is
 * (block low, block high, stream, domain), and a block gives four numbers, in order.
 */
export class RandomStream {
  readonly #counter: Uint32Array;
  readonly #key: Uint32Array;
  readonly #block = new Uint32Array(4);
  #used = 4;

  /**
   * @param seed integer in [0, 2^53)
   * @param stream integer in [0, 2^32), for example the epoch
   */
  constructor(seed: number, domain: RandomDomain, stream: number) {
    if (!Number.isSafeInteger(seed) || seed < 0) {
      throw new RangeError(`a seed is an integer in [0, 2^53), not ${seed}`);
    }
    if (!Number.isInteger(stream) || stream < 0 || stream >= two32) {
      throw new RangeError(`a stream is an integer in [0, 2^32), not ${stream}`);
    }
    this.#key = Uint32Array.of(seed % two32, Math.floor(seed / two32));
    this.#counter = Uint32Array.of(0, 0, stream, randomDomains[domain]);
  }

  nextUint32(): number {
    if (this.#used === 4) {
      philox4x32(this.#counter, this.#key, this.#block);
      this.#used = 0;
      const low = ((this.#counter[0] ?? 0) + 1) >>> 0;
      this.#counter[0] = low;
      if (low === 0) this.#counter[1] = (this.#counter[1] ?? 0) + 1;
    }
    return this.#block[this.#used++] ?? 0;
  }

  /**
   * Uniform in [0, bound), without bias: Lemire, "Fast random integer generation in an interval"
   * (2019), which rejects the few values that would favour some results.
   *
   * @param bound integer in [1, 2^32)
   */
  nextBelow(bound: number): number {
    if (!Number.isInteger(bound) || bound < 1 || bound >= two32) {
      throw new RangeError(`a bound is an integer in [1, 2^32), not ${bound}`);
    }
    const threshold = (two32 - bound) % bound;
    for (;;) {
      const value = this.nextUint32();
      if (Math.imul(value, bound) >>> 0 >= threshold) return multiplyHigh(value, bound);
    }
  }

  /** Uniform in [0, 1), with 53 random bits. */
  nextFloat64(): number {
    const high = this.nextUint32() >>> 5;
    const low = this.nextUint32() >>> 6;
    return (high * 2 ** 26 + low) / 2 ** 53;
  }
}

/** Fisher-Yates from the end, drawing `n - 1` bounded integers from the stream. */
export function shuffledIndices(stream: RandomStream, n: number): Uint32Array {
  if (!Number.isInteger(n) || n < 0 || n >= two32) {
    throw new RangeError(`the length of a permutation is an integer in [0, 2^32), not ${n}`);
  }
  const order = Uint32Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const j = stream.nextBelow(i + 1);
    const moved = order[i] ?? 0;
    order[i] = order[j] ?? 0;
    order[j] = moved;
  }
  return order;
}

/** The order of rows of an epoch: a permutation of 0 .. n-1 that depends on its arguments only. */
export function permutation(seed: number, epoch: number, n: number): Uint32Array {
  return shuffledIndices(new RandomStream(seed, "rowPermutation", epoch), n);
}

/** Normal numbers of mean 0: Box and Muller, "A note on the generation of random normal deviates" (1958). */
export function fillNormal(
  values: Float32Array,
  standardDeviation: number,
  stream: RandomStream,
): void {
  for (let i = 0; i < values.length; i += 2) {
    const radius = standardDeviation * Math.sqrt(-2 * Math.log(1 - stream.nextFloat64()));
    const angle = 2 * Math.PI * stream.nextFloat64();
    values[i] = radius * Math.cos(angle);
    if (i + 1 < values.length) values[i + 1] = radius * Math.sin(angle);
  }
}
