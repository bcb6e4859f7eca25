import type { z } from "zod";
import type { Kernels } from "#lib/optim/kernels";
import type { TensorWise } from "./tensor-wise.js";

/** What an optimizer is set to; it travels to the threads of the shards. */
export type OptimizerSettings = Readonly<Record<string, number | boolean>>;

/** One update of a region. */
export interface RegionUpdate {
  readonly learningRate: number;
  /** 1 for the first update of the region. */
  readonly updateNumber: number;
  /** Multiplies the summed gradient. */
  readonly gradientScale: number;
  /** Whether weight decay is for the region. */
  readonly decays: boolean;
}

/** Where the float32 arrays of a block begin in the wasm memory; bytes. */
interface UpdatedBlock<Slot extends string> {
  readonly masters: number;
  /** Of the step's summed gradient. */
  readonly gradient: number;
  readonly states: Readonly<Record<Slot, number>>;
  /** Where the new masters go in wire form. */
  readonly wire: number;
  /** Whether that form is bfloat16, not float32. */
  readonly isBfloat16: boolean;
  readonly numElements: number;
}

/** Keys of a configuration that every optimizer may read. */
export interface CommonKeys {
  readonly weight_decay: number;
}

type Values<Shape extends z.ZodRawShape> = Readonly<z.output<z.ZodObject<Shape>>>;

/**
 * A way to turn gradients into updates: one file of this folder, a line in its registry (index.ts), and a
 * file of kernels in `lib/optim/assembly`. It has one of two updates: of blocks, which is one pass over all
 * elements, or of tensors, where sums over them come first.
 */
type OptimizerKind<
  Fields extends z.ZodRawShape,
  Args extends z.ZodRawShape,
  Settings extends OptimizerSettings,
  Slot extends string,
  OwnKernels,
> = OptimizerParts<Fields, Args, Settings, Slot> &
  (
    | { readonly update: BlockUpdate<Settings, Slot, OwnKernels>; readonly tensorWise?: never }
    | { readonly tensorWise: TensorWise<Settings, Slot, OwnKernels>; readonly update?: never }
  );

/**
 * Prepares an update. What it returns is called for each block of the region in turn, and writes the new
 * states, the new masters, and these in wire form too. Blocks may be shared out to two threads.
 */
type BlockUpdate<Settings extends OptimizerSettings, Slot extends string, OwnKernels> = (
  kernels: Kernels & OwnKernels,
  settings: Settings,
  update: RegionUpdate,
) => (block: UpdatedBlock<Slot>) => void;

interface OptimizerParts<
  Fields extends z.ZodRawShape,
  Args extends z.ZodRawShape,
  Settings extends OptimizerSettings,
  Slot extends string,
> {
  /** Tells it from the others where two of `names` mean the same. */
  readonly name: string;
  /** Values of `optim`, as transformers has them. */
  readonly names: readonly string[];
  /** Keys of the configuration that are its own. */
  readonly fields: Fields;
  /** What it takes of `optim_args`: numbers and booleans with defaults. */
  readonly args: Args;
  settings(config: CommonKeys & Values<Fields>, args: Values<Args>): Settings;
  /**
   * Names of the float32 arrays that it keeps beside the masters, of an element each: zeros at first, saved in
   * checkpoints.
   */
  states(settings: Settings): readonly Slot[];
  /** Elements that share a number of a state, where not each has one: a power of 2, at most 1024. */
  readonly packing?: Readonly<Partial<Record<Slot, number>>>;
}

/** A kind whose settings are only known to itself. */
export interface Optimizer<Fields extends z.ZodRawShape = z.ZodRawShape> {
  readonly name: string;
  readonly names: readonly string[];
  readonly fields: Fields;
  readonly args: z.ZodRawShape;
  settings(
    config: CommonKeys & Readonly<Record<string, unknown>>,
    args: Readonly<Record<string, unknown>>,
  ): OptimizerSettings;
  states(settings: OptimizerSettings): readonly string[];
  readonly packing?: Readonly<Record<string, number>>;
  readonly update?: BlockUpdate<OptimizerSettings, string, unknown>;
  readonly tensorWise?: TensorWise<OptimizerSettings, string, unknown>;
}

/** Each kind is given its own settings, slots and kernels only: the registry keeps them together. */
export const defineOptimizer = <
  Fields extends z.ZodRawShape,
  Args extends z.ZodRawShape,
  Settings extends OptimizerSettings,
  Slot extends string,
  OwnKernels,
>(
  kind: OptimizerKind<Fields, Args, Settings, Slot, OwnKernels>,
): Optimizer<Fields> => kind as unknown as Optimizer<Fields>;
