import { emaSlot } from "#lib/optim/ema";
import { adamW } from "./adamw.js";
import type { CommonKeys, Optimizer, OptimizerSettings } from "./kind.js";
import { sgd } from "./sgd.js";

/** The optimizers that there are. */
export const optimizers = [adamW, sgd] as const;

/** Values of `optim`. */
export const optimizerNames: readonly string[] = optimizers.flatMap(({ names }) => names);

/** An optimizer with its settings. */
export interface ChosenOptimizer {
  readonly name: string;
  readonly settings: OptimizerSettings;
  /** Of the masters' moving average, which is kept whatever the optimizer; absent: there is none. */
  readonly emaDecay?: number;
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
export function openOptimizer({ name, settings, emaDecay }: ChosenOptimizer): {
  /** Names of the arrays that it keeps, and of the average beside them. */
  readonly slots: readonly string[];
  readonly update: (
    kernels: Parameters<Optimizer["update"]>[0],
    update: Parameters<Optimizer["update"]>[2],
  ) => ReturnType<Optimizer["update"]>;
} {
  const optimizer = find((each) => each.name === name, name);
  return {
    slots: [...optimizer.states(settings), ...(emaDecay === undefined ? [] : [emaSlot])],
    update: (kernels, update) => optimizer.update(kernels, settings, update),
  };
}

function find(isWanted: (optimizer: Optimizer) => boolean, name: string): Optimizer {
  const found = optimizers.find(isWanted);
  if (found === undefined) throw new RangeError(`There is no optimizer ${name}`);
  return found;
}
