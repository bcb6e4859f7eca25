import type { WireDtype } from "./dtype.js";
import { bytesPerElement } from "./dtype.js";

/**
 * The flat parameter space: every trainable tensor at a fixed element offset.
 *
 * Matrices come first, vectors (norm weights, biases) last. Matrices are decayed and travel in the
 * wire dtype of the job; vectors are not decayed and always travel in float32, because a bfloat16
 * norm weight near 1 cannot move by less than 2^-8. So the space has exactly two regions, and the
 * byte offset of an element is a function of one boundary.
 */
export interface ParameterLayout {
  readonly tensors: readonly TensorSlot[];
  /** Elements in the whole space, padding included; a multiple of `blockElements`. */
  readonly numElements: number;
  /** First element of the vector region; a multiple of `blockElements`. */
  readonly vectorStart: number;
  /** Type in which elements before `vectorStart` travel. */
  readonly matrixDtype: WireDtype;
}

export interface TensorSlot {
  readonly name: string;
  readonly shape: readonly number[];
  /** First element in the flat space; a multiple of `slotAlignElements`. */
  readonly offset: number;
  /** Elements without padding. */
  readonly size: number;
}

/** Sums of squares are taken over blocks of this many elements, whatever the number of shards. */
export const blockElements = 65_536;
/** Each tensor starts on a 64-byte boundary in every wire dtype, so that it can be fed without a copy. */
export const slotAlignElements = 32;

const roundUp = (value: number, multiple: number): number => Math.ceil(value / multiple) * multiple;

/** Lays out the trainable tensors in the order given; a tensor of rank >= 2 is a matrix. */
export function buildParameterLayout(
  tensors: readonly { readonly name: string; readonly shape: readonly number[] }[],
  matrixDtype: WireDtype,
): ParameterLayout {
  const slots: TensorSlot[] = [];
  let offset = 0;
  const place = (tensor: { readonly name: string; readonly shape: readonly number[] }): void => {
    const size = tensor.shape.reduce((product, dim) => product * dim, 1);
    slots.push(
      Object.freeze({ name: tensor.name, shape: Object.freeze([...tensor.shape]), offset, size }),
    );
    offset = roundUp(offset + size, slotAlignElements);
  };
  for (const tensor of tensors) if (tensor.shape.length >= 2) place(tensor);
  offset = roundUp(offset, blockElements);
  const vectorStart = offset;
  for (const tensor of tensors) if (tensor.shape.length < 2) place(tensor);
  return Object.freeze({
    tensors: Object.freeze(slots),
    numElements: roundUp(offset, blockElements),
    vectorStart,
    matrixDtype,
  });
}

/** Byte offset of an element in a buffer that holds the whole space in wire form. */
export function wireOffsetBytes(layout: ParameterLayout, element: number): number {
  const matrixElements = Math.min(element, layout.vectorStart);
  return matrixElements * bytesPerElement[layout.matrixDtype] + (element - matrixElements) * 4;
}

export function wireSizeBytes(layout: ParameterLayout): number {
  return wireOffsetBytes(layout, layout.numElements);
}

export function wireDtypeAt(layout: ParameterLayout, element: number): WireDtype {
  return element < layout.vectorStart ? layout.matrixDtype : "float32";
}

export interface ElementRange {
  readonly start: number;
  /** One past the last element. */
  readonly end: number;
}

/** Contiguous block-aligned ranges, one a shard, as equal as blocks allow; a later one may be empty. */
export function shardRanges(layout: ParameterLayout, numShards: number): readonly ElementRange[] {
  const numBlocks = layout.numElements / blockElements;
  return Array.from({ length: numShards }, (_, shard) =>
    Object.freeze({
      start: Math.floor((numBlocks * shard) / numShards) * blockElements,
      end: Math.floor((numBlocks * (shard + 1)) / numShards) * blockElements,
    }),
  );
}
