import { LockstepError } from "#lib/core/errors/index";
import {
  blockElements,
  type ElementRange,
  type ParameterLayout,
  shardRanges,
} from "#lib/core/parameter-layout";
import { wireRangeBytes } from "#lib/core/wire-space";
import type { OpenOptimizer } from "./optimizers/index.js";

/** Where the arrays of a shard lie in its wasm memory; byte offsets. */
export interface MemoryMap {
  readonly numElements: number;
  readonly wireBytes: number;
  readonly masters: number;
  /** Of the optimizer's arrays, by name. */
  readonly states: Readonly<Record<string, number>>;
  readonly gradientSum: number;
  /** Two versions of the parameters in wire form. */
  readonly published: readonly [number, number];
  /** One block of an arriving gradient in wire form, for each of two threads. */
  readonly staging: readonly [number, number];
  /** The optimizer's own, for each of two threads. */
  readonly scratch: readonly [number, number];
  readonly totalBytes: number;
}

export const wasmPageBytes = 65_536;
/** 32-bit addresses; the last page stays out, so that the end of an array is an address too. */
export const maxMemoryBytes = 2 ** 32 - wasmPageBytes;
/** The compiled module keeps its few globals below this address. */
const firstFreeByte = wasmPageBytes;
const stagingBytes = blockElements * 4;

/** What the optimizer takes beside masters and sum. */
type OptimizerNeeds = Pick<OpenOptimizer, "slots" | "packing" | "scratchBytes">;

/**
 * 4 bytes an element for masters, sum and each of the optimizer's arrays that is not packed, and twice the wire
 * form: with AdamW's two moments 20 bytes with bfloat16 on the wire, 24 with float32.
 *
 * @throws E_SHARD_TOO_LARGE when the range does not fit one wasm memory.
 */
export function memoryMap(
  layout: ParameterLayout,
  range: ElementRange,
  optimizer: OptimizerNeeds,
): MemoryMap {
  const map = mapOf(layout, range, optimizer);
  if (map.totalBytes > maxMemoryBytes) {
    throw new LockstepError("E_SHARD_TOO_LARGE", {
      numElements: map.numElements,
      neededBytes: map.totalBytes,
      limitBytes: maxMemoryBytes,
      shardsNeeded: shardsNeeded(layout, optimizer),
    });
  }
  return Object.freeze(map);
}

function mapOf(
  layout: ParameterLayout,
  range: ElementRange,
  { slots, packing, scratchBytes }: OptimizerNeeds,
): MemoryMap {
  const numElements = range.end - range.start;
  const float32Bytes = numElements * 4;
  const wireBytes = wireRangeBytes(layout, range);
  let end = firstFreeByte;
  const place = (bytes: number): number => {
    const start = end;
    end += bytes;
    return start;
  };
  return {
    numElements,
    wireBytes,
    masters: place(float32Bytes),
    states: Object.fromEntries(
      slots.map((slot) => [slot, place(float32Bytes / (packing[slot] ?? 1))]),
    ),
    gradientSum: place(float32Bytes),
    published: [place(wireBytes), place(wireBytes)],
    staging: [place(stagingBytes), place(stagingBytes)],
    scratch: [place(scratchBytes), place(scratchBytes)],
    totalBytes: end,
  };
}

/** What the shards of a space take together, bytes; each further one takes a few blocks more. */
export const shardsBytes = (layout: ParameterLayout, optimizer: OptimizerNeeds): number =>
  mapOf(layout, { start: 0, end: layout.numElements }, optimizer).totalBytes;

/** The smallest number of shards with which every range fits one wasm memory. */
export function shardsNeeded(layout: ParameterLayout, optimizer: OptimizerNeeds): number {
  const fits = (range: ElementRange): boolean =>
    mapOf(layout, range, optimizer).totalBytes <= maxMemoryBytes;
  for (let numShards = 1; ; numShards++) {
    if (shardRanges(layout, numShards).every(fits)) return numShards;
  }
}
