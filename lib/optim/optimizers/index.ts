import { emaSlot } from "#lib/optim/ema";
import { anchorSlot, fisherSlot } from "#lib/optim/ewc";
import { adafactor } from "./adafactor.js";
import { adam } from "./adam.js";
import { adamW } from "./adamw.js";
import { adamW8bit } from "./adamw-8bit.js";
import type { CommonKeys, Optimizer, OptimizerSettings } from "./kind.js";
import { lion } from "./lion.js";
import { sgd } from "./sgd.js";

/** The optimizers that there are. */
export const optimizers = [adamW, adamW8bit, adam, sgd, lion, adafactor] as const;

/** Values of `optim`. */
export const optimizerNames: readonly string[] = optimizers.flatMap(({ names }) => names);

/** An optimizer with its settings. */
export interface ChosenOptimizer {
  readonly name: string;
  readonly settings: OptimizerSettings;
  /** Of the masters' moving average, which is kept whatever the optimizer; absent: there is none. */
  readonly emaDecay?: number;
  /** Weight of the penalty of EWC; absent: there is none. */
  readonly ewcLambda?: number;
}

/** @param optim one of `optimizerNames` */
export function optimizerOf(optim: string): Optimizer {
  return find(({ names }) => names.includes(optim), optim);
}

/** @param args what `optim_args` sets, in the types that the optimizer declares, with its defaults */
export function chooseOptimizer(
  config: CommonKeys & Readonly<Record<string, unknown>> & { readonly optim: string },
  args: Readonly<Record<string, unknown>>,
): ChosenOptimizer {
  const optimizer = optimizerOf(config.optim);
  return { name: optimizer.name, settings: optimizer.settings(config, args) };
}

/** The optimizer of a choice, which has its settings in other threads too. */
export interface OpenOptimizer extends Pick<Optimizer, "update" | "tensorWise"> {
  /** Names of the arrays that are kept beside the masters: its own, the average's and those of EWC. */
  readonly slots: readonly string[];
  /** Elements that share a number of such an array, where not each has one. */
  readonly packing: Readonly<Record<string, number>>;
  /** Memory that each thread of a shard needs beside all arrays. */
  readonly scratchBytes: number;
  readonly settings: OptimizerSettings;
}

export function openOptimizer({
  name,
  settings,
  emaDecay,
  ewcLambda,
}: ChosenOptimizer): OpenOptimizer {
  const { states, packing = {}, update, tensorWise } = find((each) => each.name === name, name);
  return {
    slots: [
      ...states(settings),
      ...(emaDecay === undefined ? [] : [emaSlot]),
      ...(ewcLambda === undefined ? [] : [fisherSlot, anchorSlot]),
    ],
    packing,
    scratchBytes: tensorWise?.scratchBytes ?? 0,
    settings,
    ...(update === undefined ? {} : { update }),
    ...(tensorWise === undefined ? {} : { tensorWise }),
  };
}

function find(isWanted: (optimizer: Optimizer) => boolean, name: string): Optimizer {
  const found = optimizers.find(isWanted);
  if (found === undefined) throw new RangeError(`There is no optimizer ${name}`);
  return found;
}
