import type { Kernels } from "#lib/optim/kernels";
import type { OptimizerSettings, RegionUpdate } from "./kind.js";

/**
 * The elements of a tensor that lie in one block of the flat space. Addresses are byte offsets in the wasm memory, of
 * float32 arrays from the part's first element on. Elements up to the next multiple of 8 are the part's too: padding,
 * which is 0 and has to stay so.
 */
export interface TensorPart<Slot extends string> {
  readonly shape: readonly number[];
  /** First element within the tensor. */
  readonly start: number;
  readonly numElements: number;
  /** Its first element within the block. */
  readonly position: number;
  readonly masters: number;
  /** Of the step's summed gradient; the last update of a step has it last. */
  readonly gradient: number;
  /** Of states with a number for several elements (`packing`) the address is the block's, not the part's. */
  readonly states: Readonly<Record<Slot, number>>;
}

/** Memory of a thread that a pass may use as it likes; in `measure` it holds nothing from part to part. */
export interface Scratch {
  /** Byte offset in the wasm memory, a multiple of 16. */
  readonly start: number;
  /** The memory from there on. */
  readonly bytes: Uint8Array<SharedArrayBuffer>;
}

/** Adds float64 numbers to the tensor's sums from number `at` on; they are read at once. */
type AddSums = (at: number, sums: ArrayLike<number>) => void;

/** A tensor with what is kept of it as a whole, for whoever adds up its sums. */
export interface WholeTensor {
  readonly shape: readonly number[];
  /** What `states` names, float32. */
  readonly states: Readonly<Record<string, Float32Array>>;
}

/**
 * One round over all elements before the update: shards add up sums of their parts, and with the sums of the whole
 * tensor it is concluded what the next round is given.
 */
export interface StatisticsPass<
  Settings extends OptimizerSettings,
  Slot extends string,
  OwnKernels,
> {
  /** Float64 sums of a tensor. */
  numSums(shape: readonly number[]): number;
  /** Float32 numbers that are concluded of a tensor. */
  numGiven(shape: readonly number[]): number;
  /**
   * What it returns is called for the parts of a region in order. It may change gradient and states of its part.
   *
   * @param given what the pass before concluded of the tensor; empty in the first
   */
  measure(
    kernels: Kernels & OwnKernels,
    settings: Settings,
    update: RegionUpdate,
  ): (part: TensorPart<Slot>, given: Float32Array, add: AddSums, scratch: Scratch) => void;
  /** Changes the tensor's states, and writes what the next pass or the update is given. */
  conclude(
    sums: Float64Array,
    tensor: WholeTensor,
    into: Float32Array,
    settings: Settings,
    update: RegionUpdate,
  ): void;
}

/** The update of an optimizer that needs sums over whole tensors, which cross blocks and shards. */
export interface TensorWise<Settings extends OptimizerSettings, Slot extends string, OwnKernels> {
  /** Names and sizes of the float32 arrays that are kept of a tensor as a whole: zeros at first. */
  states(shape: readonly number[]): Readonly<Record<string, number>>;
  readonly passes: readonly StatisticsPass<Settings, Slot, OwnKernels>[];
  /** Of `Scratch`, for each thread. */
  readonly scratchBytes: number;
  /**
   * Prepares an update. What it returns is called for each part of the region in order, and writes new masters and
   * states; the wire form is made of the masters.
   *
   * @param scratch what is written there stays for the region
   * @param given what the last pass concluded of the tensor
   */
  update(
    kernels: Kernels & OwnKernels,
    settings: Settings,
    update: RegionUpdate,
    scratch: Scratch,
  ): (part: TensorPart<Slot>, given: Float32Array) => void;
}
