/** Words of a counter, the least significant first. */
type PhiloxCounter = readonly [number, number, number, number];
type PhiloxKey = readonly [number, number];

/** Words that one counter gives. */
const groupWords = 4;

const multipliers = [0xd251_1f53, 0xcd9e_8d57] as const;
const keySteps = [0x9e37_79b9, 0xbb67_ae85] as const;
const numRounds = 10;

/**
 * Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), in the order of
 * TensorFlow's stateless operations: four words of a counter, then those of the next.
 *
 * @param key two words of 32 bits
 * @param counter of the first four words, of 128 bits
 * @returns so many words of 32 bits
 */
export function philoxWords(key: PhiloxKey, counter: PhiloxCounter, numWords: number): Uint32Array {
  const words = new Uint32Array(numWords);
  const next = Uint32Array.from(counter);
  for (let start = 0; start < numWords; start += groupWords) {
    const group = philoxGroup(key, next);
    words.set(group.subarray(0, Math.min(groupWords, numWords - start)), start);
    for (let i = 0; i < next.length; i++) {
      next[i] = (next[i] as number) + 1;
      if (next[i] !== 0) break;
    }
  }
  return words;
}

function philoxGroup(key: PhiloxKey, counter: Uint32Array): Uint32Array {
  let [k0, k1] = key;
  let [c0, c1, c2, c3] = counter as unknown as PhiloxCounter;
  for (let round = 0; round < numRounds; round++) {
    const [high0, low0] = product(multipliers[0], c0);
    const [high1, low1] = product(multipliers[1], c2);
    [c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1, (high0 ^ c3 ^ k1) >>> 0, low0];
    k0 = (k0 + keySteps[0]) >>> 0;
    k1 = (k1 + keySteps[1]) >>> 0;
  }
  return Uint32Array.of(c0, c1, c2, c3);
}

/** The two words of a product of 64 bits; numbers hold 53, so one factor goes in halves. */
function product(a: number, b: number): readonly [high: number, low: number] {
  const lowHalf = a * (b & 0xffff);
  const highHalf = a * (b >>> 16) + Math.floor(lowHalf / 0x1_0000);
  return [Math.floor(highHalf / 0x1_0000), Math.imul(a, b) >>> 0];
}
