import type { ElementRange } from "./parameter-layout.js";
import type { ShardFileWriter } from "./saved-files.js";

/** What a reducer shard keeps of its range of the flat space; float32. */
export interface ShardArrays {
  /** By element within the range. */
  readonly masters: Float32Array;
  /** What the optimizer keeps, by the names of its arrays; a number for each element, or for several in a row. */
  readonly states: Readonly<Record<string, Float32Array>>;
}

/** Float32 elements that are elsewhere, and are read in pieces. */
export interface DistantArray {
  readonly length: number;
  readonly byteLength: number;
  subarray(start: number, end: number): DistantArray;
  /** All of them in order, in memory that nobody else has. */
  pieces(): AsyncIterable<Float32Array<ArrayBuffer>>;
}

/** Elements in memory, or elsewhere. */
export type KeptArray = Float32Array | DistantArray;

/** A range of the flat space with its arrays, wherever they are. */
export interface KeptPiece {
  readonly range: ElementRange;
  readonly masters: KeptArray;
  readonly states: Readonly<Record<string, KeptArray>>;
  /** Writes files of them where they are; absent: they are in this process. */
  readonly files?: ShardFileWriter;
}

/** What the optimizer keeps of whole tensors, which no shard has: float32 arrays by `TENSOR.STATE`. */
export type TensorStates = Readonly<Record<string, Float32Array>>;

/** A range of the flat space with its arrays. */
export interface ShardPiece extends ShardArrays {
  readonly range: ElementRange;
}

/**
 * Zeros on shared memory.
 * @param sizes of what the optimizer keeps, by name
 */
export function zeroArrays(
  numElements: number,
  sizes: readonly (readonly [slot: string, size: number])[],
): ShardArrays {
  const zeros = (size: number): Float32Array => new Float32Array(new SharedArrayBuffer(size * 4));
  return {
    masters: zeros(numElements),
    states: Object.fromEntries(sizes.map(([slot, size]) => [slot, zeros(size)])),
  };
}

/** Copies all arrays. @throws RangeError where `into` has others, or of another size */
export function copyArrays(from: ShardArrays, into: ShardArrays): void {
  copyWhole(from.masters, into.masters);
  const slots = Object.keys(into.states);
  const given = Object.keys(from.states);
  if (slots.length !== given.length) throw otherSlots(slots, given);
  for (const [slot, array] of Object.entries(into.states)) {
    const source = from.states[slot];
    if (source === undefined) throw otherSlots(slots, given);
    copyWhole(source, array);
  }
}

function copyWhole(from: Float32Array, into: Float32Array): void {
  if (from.length !== into.length) {
    throw new RangeError(`The range has ${into.length} elements, not ${from.length}.`);
  }
  into.set(from);
}

const otherSlots = (expected: readonly string[], got: readonly string[]): RangeError =>
  new RangeError(`The optimizer keeps ${expected.join(", ")}, not ${got.join(", ")}.`);
