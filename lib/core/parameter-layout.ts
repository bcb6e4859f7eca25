import { isNf4, type WireForm, wireBytesPerElement } from "./dtype.js";
import { nf4GroupElements } from "./nf4.js";

/**
 * A flat parameter space: every tensor at a fixed element offset, in regions that travel and are updated
 * in one way each.
 */
export interface ParameterLayout {
  /** By ascending offset; none crosses from one region into the next. */
  readonly tensors: readonly TensorSlot[];
  /** Elements in the whole space, padding included; a multiple of `blockElements`. */
  readonly numElements: number;
  /** One after the other from the first element to the last; none is empty. */
  readonly regions: readonly Region[];
}

export interface ElementRange {
  readonly start: number;
  /** One past the last element. */
  readonly end: number;
}

/** A range of whole blocks. */
export interface Region extends ElementRange {
  /** Form in which its elements travel. */
  readonly dtype: WireForm;
  /** Whether the optimizer's weight decay is for it. */
  readonly decays: boolean;
  /** Multiplies the learning rate. */
  readonly rateMultiplier: number;
  /**
   * Number of the first update that is for it, from 1. Before, its gradient is not counted in the norm and
   * its masters stay; an optimizer counts its updates from there.
   */
  readonly firstUpdate: number;
}

export interface TensorSlot {
  readonly name: string;
  readonly shape: readonly number[];
  /** First element in the flat space; a multiple of `slotAlignElements`, and of what its form keeps together. */
  readonly offset: number;
  /** Elements without padding. */
  readonly size: number;
  /** Whether the elements lie as those of the transposed matrix. */
  readonly isTransposed?: true;
}

/** Sums of squares are taken over blocks of this many elements, whatever the number of shards. */
export const blockElements = 65_536;
/** Each tensor starts on a 64-byte boundary in every wire dtype, so that it can be fed without a copy. */
export const slotAlignElements = 32;

const roundUp = (value: number, multiple: number): number => Math.ceil(value / multiple) * multiple;

interface NamedShape extends Pick<TensorSlot, "name" | "shape" | "isTransposed"> {
  /** Whether weight decay is for it. @default that of its rank: matrices decay, vectors do not */
  readonly decays?: boolean;
}

/** What multiplies the learning rate of a tensor. */
export type RateOf = (tensor: NamedShape) => number;

/** What is not the same for all tensors of a space. */
export interface TensorRules {
  /** @default 1 for all */
  readonly rateOf?: RateOf | undefined;
  /** Of all tensors of the space: the number of the first update that is for a tensor. @default 1 for all */
  readonly firstUpdatesOf?:
    | ((tensors: readonly NamedShape[]) => (tensor: NamedShape) => number)
    | undefined;
}

/** The form in which a matrix travels. */
export type FormOf = (tensor: NamedShape) => WireForm;

/**
 * Lays out tensors in two regions, each in the order given: matrices (rank >= 2), then vectors (norm
 * weights, biases). Matrices decay and travel in `matrixForm`. Vectors do not decay and always travel in
 * float32, because a bfloat16 norm weight near 1 cannot move by less than 2^-8. Tensors that say otherwise of
 * their decay have regions of their own.
 *
 * @param matrixForm where it differs by matrix there is a region for each form, in the order in which they come
 * @param rules where a rate or a first update has several values each of the regions is one for each value, in the
 *   order in which they come: a value costs less than two blocks of padding, however many tensors have it
 */
export function buildParameterLayout(
  tensors: readonly NamedShape[],
  matrixForm: WireForm | FormOf,
  { rateOf = () => 1, firstUpdatesOf = () => () => 1 }: TensorRules = {},
): ParameterLayout {
  const firstUpdateOf = firstUpdatesOf(tensors);
  const slots: TensorSlot[] = [];
  const regions: Region[] = [];
  let offset = 0;
  const addRegion = (
    members: readonly NamedShape[],
    settings: Omit<Region, keyof ElementRange>,
  ): void => {
    const start = offset;
    const align = isNf4(settings.dtype) ? nf4GroupElements : slotAlignElements;
    for (const { name, shape, isTransposed } of members) {
      const size = shape.reduce((product, dim) => product * dim, 1);
      const turned = isTransposed === undefined ? {} : { isTransposed };
      slots.push(
        Object.freeze({ name, shape: Object.freeze([...shape]), offset, size, ...turned }),
      );
      offset = roundUp(offset + size, align);
    }
    offset = roundUp(offset, blockElements);
    if (offset === start) return;
    regions.push(Object.freeze({ start, end: offset, ...settings }));
  };
  const addRegions = (
    members: readonly NamedShape[],
    settings: Pick<Region, "dtype" | "decays">,
  ): void => {
    for (const [rateMultiplier, group] of groupBy(members, rateOf)) {
      for (const [firstUpdate, opened] of groupBy(group, firstUpdateOf)) {
        addRegion(opened, { ...settings, rateMultiplier, firstUpdate });
      }
    }
  };
  const isMatrix = ({ shape }: NamedShape): boolean => shape.length >= 2;
  const formOf = typeof matrixForm === "string" ? () => matrixForm : matrixForm;
  const vectors = tensors.filter((tensor) => !isMatrix(tensor));
  for (const [ofMatrices, forms] of [
    [true, groupBy(tensors.filter(isMatrix), formOf)],
    [false, new Map([["float32", vectors]] as const)],
  ] as const) {
    for (const [dtype, members] of forms) {
      for (const decays of [ofMatrices, !ofMatrices]) {
        const alike = members.filter((tensor) => (tensor.decays ?? ofMatrices) === decays);
        addRegions(alike, { dtype, decays });
      }
    }
  }
  return Object.freeze({
    tensors: Object.freeze(slots),
    numElements: offset,
    regions: Object.freeze(regions),
  });
}

/** Members by their keys, in the order in which either comes. */
function groupBy<T, K>(members: readonly T[], keyOf: (member: T) => K): Map<K, T[]> {
  const groups = new Map<K, T[]>();
  for (const member of members) {
    const key = keyOf(member);
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [member]);
    else group.push(member);
  }
  return groups;
}

/**
 * Byte offset of an element, or of the space's end, in a buffer that holds the whole space in wire form.
 *
 * @param element of a form that keeps elements together the first of such
 */
export function wireOffsetBytes({ regions }: ParameterLayout, element: number): number {
  let bytes = 0;
  for (const { start, end, dtype } of regions) {
    if (element <= start) break;
    bytes += (Math.min(element, end) - start) * wireBytesPerElement[dtype];
  }
  return bytes;
}

export function wireSizeBytes(layout: ParameterLayout): number {
  return wireOffsetBytes(layout, layout.numElements);
}

/** The region that an element lies in. @throws RangeError for an element that the space does not have */
export function regionAt({ regions }: ParameterLayout, element: number): Region {
  const region = regions.find(({ start, end }) => start <= element && element < end);
  if (region === undefined) throw new RangeError(`There is no element ${element} in the space`);
  return region;
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
