import { adamFields, adamSettings } from "./adam-family.js";
import { dynamicMap } from "./dynamic-map.js";
import { defineOptimizer, type RegionUpdate } from "./kind.js";
import type { Scratch, StatisticsPass, TensorWise } from "./tensor-wise.js";

/** Exports of lib/optim/assembly/adamw-8bit.ts; addresses in bytes. */
interface AdamW8bitKernels {
  setAdamW8bitTables(
    signedValues: number,
    unsignedValues: number,
    signedMidpoints: number,
    unsignedMidpoints: number,
    signedStarts: number,
    unsignedStarts: number,
    firsts: number,
    seconds: number,
  ): void;
  setAdamW8bitFactors(
    gradientScale: number,
    decayFactor: number,
    ...factors: ReturnType<typeof factorsOf>
  ): void;
  adamW8bit(
    p: number,
    g: number,
    codes1: number,
    absmax1: number,
    codes2: number,
    absmax2: number,
    n: number,
  ): void;
}

type Settings = ReturnType<typeof adamSettings>;
type Slot =
  | "first_moment_codes"
  | "first_moment_absmax"
  | "second_moment_codes"
  | "second_moment_absmax";

/** Elements that share a factor, as bitsandbytes has it; fewer at the ends of a tensor. */
const chunkElements = 256;
/** Smaller tensors keep moments in float32, as bitsandbytes' min_8bit_size. */
const minElementsOf8bit = 4096;

const sizeOf = (shape: readonly number[]): number =>
  shape.reduce((product, dim) => product * dim, 1);
const isIn8bit = (shape: readonly number[]): boolean => sizeOf(shape) >= minElementsOf8bit;
/** Elements of a tensor whose moments are float32. */
const numPlain = (shape: readonly number[]): number => (isIn8bit(shape) ? 0 : sizeOf(shape));

/** In the order that `setAdamW8bitFactors` takes them; float64, to be rounded once. */
function factorsOf(
  { beta1, beta2, epsilon }: Settings,
  { learningRate, updateNumber }: RegionUpdate,
) {
  const biasCorrection1 = 1 - beta1 ** updateNumber;
  const biasCorrection2Sqrt = Math.sqrt(1 - beta2 ** updateNumber);
  const negativeStepSize = (-learningRate * biasCorrection2Sqrt) / biasCorrection1;
  return [
    ...([beta1, 1 - beta1, beta2, 1 - beta2] as const),
    negativeStepSize,
    epsilon * biasCorrection2Sqrt,
  ] as const;
}

const decayFactorOf = (
  { weightDecay }: Settings,
  { learningRate, decays }: RegionUpdate,
): number => (decays ? 1 - learningRate * weightDecay : 1);

const { fround } = Math;

/** The steps of small tensors, which are made where their moments are kept. */
const plainSteps: StatisticsPass<Settings, Slot, AdamW8bitKernels> = {
  numSums: numPlain,
  numGiven: numPlain,
  measure:
    () =>
    ({ shape, start, numElements, gradient }, _given, add, { bytes }) => {
      if (!isIn8bit(shape)) add(start, new Float32Array(bytes.buffer, gradient, numElements));
    },
  conclude(gradients, { states }, into, settings, update) {
    const { first_moment: first, second_moment: second } = states;
    if (first === undefined || second === undefined) return;
    const rounded = factorsOf(settings, update).map(fround);
    const [beta1 = 0, rest1 = 0, beta2 = 0, rest2 = 0, negativeStepSize = 0, epsilon = 0] = rounded;
    const scale = fround(update.gradientScale);
    for (const [i, sum] of gradients.entries()) {
      const gradient = fround(sum * scale);
      const m = fround(fround((first[i] as number) * beta1) + fround(rest1 * gradient));
      const square = fround(fround(rest2 * gradient) * gradient);
      const v = fround(fround((second[i] as number) * beta2) + square);
      first[i] = m;
      second[i] = v;
      into[i] = negativeStepSize * fround(m / fround(fround(Math.sqrt(v)) + epsilon));
    }
  },
};

const signed = dynamicMap(true);
const unsigned = dynamicMap(false);

/** In the order that `setAdamW8bitTables` takes them. */
const tables = [
  ...[signed.values, unsigned.values, signed.midpoints, unsigned.midpoints],
  ...[signed.starts, unsigned.starts],
  ...[new Float32Array(chunkElements), new Float32Array(chunkElements)],
] as const;

/** Of a table in memory, so that the next one is as well aligned. */
const paddedBytes = ({ byteLength }: ArrayBufferView): number => Math.ceil(byteLength / 16) * 16;

/** Copies the tables. @returns where they begin */
function placeTables({
  start,
  bytes,
}: Scratch): Parameters<AdamW8bitKernels["setAdamW8bitTables"]> {
  let at = 0;
  const places = tables.map((table) => {
    bytes.set(new Uint8Array(table.buffer, table.byteOffset, table.byteLength), at);
    at += paddedBytes(table);
    return start + at - paddedBytes(table);
  });
  return places as Parameters<AdamW8bitKernels["setAdamW8bitTables"]>;
}

const tensorWise: TensorWise<Settings, Slot, AdamW8bitKernels> = {
  states(shape): Record<string, number> {
    if (isIn8bit(shape)) return {};
    return { first_moment: sizeOf(shape), second_moment: sizeOf(shape) };
  },
  passes: [plainSteps],
  scratchBytes: tables.reduce((sum, table) => sum + paddedBytes(table), 0),
  update(kernels, settings, update, scratch) {
    kernels.setAdamW8bitTables(...placeTables(scratch));
    const decayFactor = decayFactorOf(settings, update);
    const factors = factorsOf(settings, update);
    kernels.setAdamW8bitFactors(update.gradientScale, decayFactor, ...factors);
    const decay = fround(decayFactor);
    return ({ shape, start, position, numElements, masters, gradient, states }, given) => {
      if (!isIn8bit(shape)) {
        const values = new Float32Array(scratch.bytes.buffer, masters, numElements);
        for (const [i, value] of values.entries()) {
          values[i] = fround(value + (given[start + i] as number)) * decay;
        }
        return;
      }
      const end = position + Math.ceil(numElements / 8) * 8;
      for (let at = position; at < end; ) {
        const next = Math.min(end, (Math.floor(at / chunkElements) + 1) * chunkElements);
        const offset = (at - position) * 4;
        const factor = factorIndex(at) * 4;
        kernels.adamW8bit(
          masters + offset,
          gradient + offset,
          states.first_moment_codes + at,
          states.first_moment_absmax + factor,
          states.second_moment_codes + at,
          states.second_moment_absmax + factor,
          next - at,
        );
        at = next;
      }
    };
  },
};

/** There is room for two chunks in each `chunkElements`: one that begins with them, and a tensor's first one. */
const factorIndex = (element: number): number =>
  2 * Math.floor(element / chunkElements) + (element % chunkElements === 0 ? 0 : 1);

/**
 * AdamW with moments of 8 bits, in the order of operations of bitsandbytes' blockwise 8-bit AdamW (Dettmers et al. 2022,
 * arXiv 2110.02861): codes of a dynamic map and a float32 factor for each chunk of 256 elements, which never has two
 * tensors' elements. The decay is decoupled, and comes last. Tensors of fewer than 4096 elements keep float32 moments.
 * Nothing is paged: a paged AdamW has the same numbers.
 */
export const adamW8bit = defineOptimizer({
  name: "adamw_8bit",
  names: ["adamw_bnb_8bit", "adamw_8bit", "paged_adamw_8bit"],
  fields: adamFields,
  args: {},
  settings: adamSettings,
  states: (): readonly Slot[] => [
    ...(["first_moment_codes", "first_moment_absmax"] as const),
    ...(["second_moment_codes", "second_moment_absmax"] as const),
  ],
  packing: {
    ...{ first_moment_codes: 4, first_moment_absmax: chunkElements / 2 },
    ...{ second_moment_codes: 4, second_moment_absmax: chunkElements / 2 },
  },
  tensorWise,
});
