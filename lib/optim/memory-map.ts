import { LockstepError } from "#lib/core/errors/index";
import {
  blockElements,
  type ElementRange,
  type ParameterLayout,
  shardRanges,
  wireOffsetBytes,
} from "#lib/core/parameter-layout";

/** Where the arrays of a shard lie in its wasm memory; byte offsets. */
export interface MemoryMap {
  readonly numElements: number;
  readonly wireBytes: number;
  readonly masters: number;
  readonly firstMoment: number;
  readonly secondMoment: number;
  readonly gradientSum: number;
  /** Two versions of the parameters in wire form. */
  readonly published: readonly [number, number];
  /** One block of an arriving gradient in wire form, for each of two threads. */
  readonly staging: readonly [number, number];
  readonly totalBytes: number;
}

export const wasmPageBytes = 65_536;
/** 32-bit addresses; the last page stays out, so that the end of an array is an address too. */
export const maxMemoryBytes = 2 ** 32 - wasmPageBytes;
/** The compiled module keeps its few globals below this address. */
const firstFreeByte = wasmPageBytes;
const stagingBytes = blockElements * 4;

/**
 * 16 bytes an element for masters, moments and sum, and twice the wire form: 20 bytes with bfloat16
 * on the wire, 24 with float32.
 *
 * @throws E_SHARD_TOO_LARGE when the range does not fit one wasm memory.
 */
export function memoryMap(layout: ParameterLayout, range: ElementRange): MemoryMap {
  const numElements = range.end - range.start;
  const float32Bytes = numElements * 4;
  const wireBytes = wireOffsetBytes(layout, range.end) - wireOffsetBytes(layout, range.start);
  let end = firstFreeByte;
  const place = (bytes: number): number => {
    const start = end;
    end += bytes;
    return start;
  };
  const map: MemoryMap = {
    numElements,
    wireBytes,
    masters: place(float32Bytes),
    firstMoment: place(float32Bytes),
    secondMoment: place(float32Bytes),
    gradientSum: place(float32Bytes),
    published: [place(wireBytes), place(wireBytes)],
    staging: [place(stagingBytes), place(stagingBytes)],
    totalBytes: end,
  };
  if (map.totalBytes > maxMemoryBytes) {
    throw new LockstepError("E_SHARD_TOO_LARGE", {
      numElements,
      neededBytes: map.totalBytes,
      limitBytes: maxMemoryBytes,
      shardsNeeded: shardsNeeded(layout),
    });
  }
  return Object.freeze(map);
}

/** The smallest number of shards with which every range fits one wasm memory. */
export function shardsNeeded(layout: ParameterLayout): number {
  const fits = (range: ElementRange): boolean => {
    const wireBytes = wireOffsetBytes(layout, range.end) - wireOffsetBytes(layout, range.start);
    const arrays = (range.end - range.start) * 16 + wireBytes * 2;
    return firstFreeByte + arrays + 2 * stagingBytes <= maxMemoryBytes;
  };
  for (let numShards = 1; ; numShards++) {
    if (shardRanges(layout, numShards).every(fits)) return numShards;
  }
}
