/**
 * Numbers that a byte stands for in dynamic quantisation (Dettmers 2015, arXiv 1511.04561; Dettmers et al. 2022,
 * arXiv 2110.02861), as bitsandbytes stores the states of its 8-bit optimizers: seven decades up to 1, each cut into
 * equal parts of which the middles are the numbers, twice as many parts in each decade as in the one below it.
 */
interface DynamicMap {
  /** By code: ascending, 256 of them. */
  readonly values: Float32Array;
  /** Between a magnitude and the next larger one; infinity after the last. */
  readonly midpoints: Float32Array;
  /**
   * Where to look for a magnitude's code first, by the bits of a float32 above its low 15, from 2^-24 on: the number
   * of midpoints below all magnitudes with these bits, among which there is at most one more.
   */
  readonly starts: Uint8Array;
}

const numDecades = 7;
/** By which the kernels find a start: lib/optim/assembly/adamw-8bit.ts has the same. */
const startShift = 15;
const firstStart = 103 << 8;
/** The last is of 1 itself. */
const numStarts = (127 << 8) - firstStart + 1;

/** @param isSigned with the magnitudes of half the codes for either sign; 0 and 1 are positive */
export function dynamicMap(isSigned: boolean): DynamicMap {
  const magnitudes = [0];
  for (let decade = 0; decade < numDecades; decade++) {
    const numParts = 2 ** (isSigned ? decade : decade + 1);
    const scale = 10 ** (decade - numDecades + 1);
    for (let part = 0; part < numParts; part++) {
      magnitudes.push(Math.fround(scale * (0.1 + (0.9 * (part + 0.5)) / numParts)));
    }
  }
  magnitudes.push(1);
  const negative = isSigned ? magnitudes.slice(1, -1).map((each) => -each) : [];
  const midpoints = magnitudes.map((each, i) =>
    Math.fround((each + (magnitudes[i + 1] ?? Number.POSITIVE_INFINITY)) / 2),
  );
  return {
    values: Float32Array.from([...negative.reverse(), ...magnitudes]),
    midpoints: Float32Array.from(midpoints),
    starts: Uint8Array.from({ length: numStarts }, (_, start) => {
      const lowest = smallestOf(start);
      return midpoints.filter((midpoint) => midpoint < lowest).length;
    }),
  };
}

function smallestOf(start: number): number {
  const bits = new Uint32Array([(firstStart + start) << startShift]);
  return new Float32Array(bits.buffer)[0] as number;
}
