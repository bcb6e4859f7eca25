import type { ResolvedConfig } from "./resolve.js";

/** transformers' rule: 1 and above are steps, below 1 a fraction of the run, rounded up. */
export function resolveSteps(value: number, totalSteps: number): number {
  return value < 1 ? Math.ceil(value * totalSteps) : value;
}

/**
 * Steps between two logs, evaluations or checkpoints; 0 where the strategy is "no".
 *
 * @param stepsPerEpoch a whole number: the last, shorter step of an epoch counts
 */
export function intervalSteps(
  config: ResolvedConfig,
  what: "logging" | "eval" | "save",
  totalSteps: number,
  stepsPerEpoch: number,
): number {
  const strategy = config[`${what}_strategy`];
  if (strategy === "no") return 0;
  if (strategy === "epoch") return stepsPerEpoch;
  return Math.max(1, resolveSteps(config[`${what}_steps`], totalSteps));
}
