import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { permutation, philox4x32, RandomStream } from "#lib/core/random";

test("philox4x32-10 gives the known answers of Random123 (kat_vectors)", () => {
  const cases = [
    [
      "00000000 00000000 00000000 00000000",
      "00000000 00000000",
      "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    ],
    [
      "ffffffff ffffffff ffffffff ffffffff",
      "ffffffff ffffffff",
      "408f276d 41c83b0e a20bc7c6 6d5451fd",
    ],
    [
      "243f6a88 85a308d3 13198a2e 03707344",
      "a4093822 299f31d0",
      "d16cfe09 94fdcceb 5001e420 24126ea1",
    ],
  ] as const;
  const words = (hex: string): Uint32Array =>
    Uint32Array.from(hex.split(" "), (word) => Number.parseInt(word, 16));
  for (const [counter, key, expected] of cases) {
    const out = new Uint32Array(4);
    philox4x32(words(counter), words(key), out);
    assert.deepEqual(out, words(expected));
  }
});

test("a permutation equals that of an independent implementation with big integers", () => {
  for (const [seed, epoch, n] of [
    [42, 0, 10],
    [42, 1, 10],
    [2 ** 53 - 1, 7, 257],
    [0, 0, 1000],
  ] as const) {
    assert.deepEqual([...permutation(seed, epoch, n)], bigIntPermutation(seed, epoch, n));
  }
});

/** The same definition, written with BigInt and a list that shrinks from its end. */
function bigIntPermutation(seed: number, epoch: number, n: number): number[] {
  const mask = 0xffffffffn;
  const numbers: bigint[] = [];
  let block = 0n;
  const next = (): bigint => {
    if (numbers.length === 0) {
      let c = [block & mask, block >> 32n, BigInt(epoch), 1n];
      let [k0, k1] = [BigInt(seed) & mask, BigInt(seed) >> 32n];
      for (let round = 0; round < 10; round++) {
        const p0 = 0xd2511f53n * (c[0] ?? 0n);
        const p1 = 0xcd9e8d57n * (c[2] ?? 0n);
        c = [
          (p1 >> 32n) ^ (c[1] ?? 0n) ^ k0,
          p1 & mask,
          (p0 >> 32n) ^ (c[3] ?? 0n) ^ k1,
          p0 & mask,
        ];
        k0 = (k0 + 0x9e3779b9n) & mask;
        k1 = (k1 + 0xbb67ae85n) & mask;
      }
      numbers.push(...c);
      block += 1n;
    }
    return numbers.shift() ?? 0n;
  };
  const order = Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i--) {
    const bound = BigInt(i + 1);
    let product = next() * bound;
    while ((product & mask) < (1n << 32n) % bound) product = next() * bound;
    const j = Number(product >> 32n);
    [order[i], order[j]] = [order[j] ?? 0, order[i] ?? 0];
  }
  return order;
}

test("a permutation holds every index once, and epochs and seeds differ", () => {
  fc.assert(
    fc.property(
      fc.maxSafeNat(),
      fc.nat(100),
      fc.integer({ min: 0, max: 300 }),
      (seed, epoch, n) => {
        const sorted = [...permutation(seed, epoch, n)].sort((a, b) => a - b);
        assert.deepEqual(
          sorted,
          Array.from({ length: n }, (_, i) => i),
        );
      },
    ),
    { numRuns: 60 },
  );
  const text = (seed: number, epoch: number): string => permutation(seed, epoch, 50).join();
  assert.equal(new Set([text(1, 0), text(1, 1), text(2, 0), text(1 + 2 ** 32, 0)]).size, 4);
});

test("all permutations of four elements are equally likely (chi-squared)", () => {
  const counts = new Map<string, number>();
  const numTrials = 24_000;
  for (let epoch = 0; epoch < numTrials; epoch++) {
    const key = permutation(12345, epoch, 4).join();
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  assert.equal(counts.size, 24);
  const expected = numTrials / 24;
  let chiSquared = 0;
  for (const count of counts.values()) chiSquared += (count - expected) ** 2 / expected;
  // 23 degrees of freedom: 0.001 quantiles are 7.5 and 49.7; a naive `% n` or a fixed point falls outside.
  assert.ok(chiSquared > 7.5 && chiSquared < 49.7, `chi-squared ${chiSquared}`);
});

test("bounded integers are unbiased where a plain modulo would not be", () => {
  // 2^32 values onto 3 * 2^30: without rejection every third result comes twice as often.
  const stream = new RandomStream(7, "test", 0);
  let numMultiples = 0;
  let numLow = 0;
  const numTrials = 30_000;
  for (let i = 0; i < numTrials; i++) {
    const value = stream.nextBelow(3 * 2 ** 30);
    if (value % 3 === 0) numMultiples++;
    if (value < 2 ** 30) numLow++;
  }
  // Five standard deviations are 0.0136; the biased share is a half, of the multiples or (with a modulo) of the low ones.
  assert.ok(
    Math.abs(numMultiples / numTrials - 1 / 3) < 0.0136,
    `share ${numMultiples / numTrials}`,
  );
  assert.ok(Math.abs(numLow / numTrials - 1 / 3) < 0.0136, `share ${numLow / numTrials}`);
});

test("floats lie in [0, 1) with mean one half", () => {
  const stream = new RandomStream(3, "test", 1);
  let sum = 0;
  for (let i = 0; i < 20_000; i++) {
    const value = stream.nextFloat64();
    assert.ok(value >= 0 && value < 1);
    sum += value;
  }
  assert.ok(Math.abs(sum / 20_000 - 0.5) < 0.0102);
});

test("seeds, streams and bounds out of range are refused", () => {
  for (const seed of [-1, 0.5, 2 ** 53, Number.NaN]) {
    assert.throws(() => permutation(seed, 0, 3), RangeError);
  }
  assert.throws(() => permutation(0, -1, 3), RangeError);
  assert.throws(() => permutation(0, 0, -3), RangeError);
  assert.throws(() => new RandomStream(0, "test", 0).nextBelow(0), RangeError);
});
