import type { ResolvedConfig } from "./resolve.js";

/** transformers' rule: 1 and above are steps, below 1 a fraction of the run, rounded up. */
export function resolveSteps(value: number, totalSteps: number): number {
  return value < 1 ? Math.ceil(value * totalSteps) : value;
}

export type Interval = "logging" | "eval" | "save";

/**
 * The steps (1 to totalSteps) after which to log, evaluate or save by strategy and interval alone.
 *
 * @param stepsPerEpoch updates in an epoch, fractional when the plan ends within one
 */
export function stepsDue(
  config: ResolvedConfig,
  interval: Interval,
  totalSteps: number,
  stepsPerEpoch: number,
): ReadonlySet<number> {
  const strategy = {
    logging: config.logging_strategy,
    eval: config.eval_strategy,
    save: config.save_strategy,
  }[interval];
  const due = new Set<number>();
  if (strategy === "steps") {
    const every = {
      logging: config.logging_steps,
      eval: config.eval_steps,
      save: config.save_steps,
    }[interval];
    const period = Math.max(1, resolveSteps(every, totalSteps));
    for (let step = period; step <= totalSteps; step += period) due.add(step);
  } else if (strategy === "epoch") {
    for (let epoch = 1; ; epoch++) {
      const step = Math.ceil(epoch * stepsPerEpoch);
      if (step > totalSteps) break;
      due.add(step);
    }
    due.add(totalSteps);
  }
  if (interval === "logging" && strategy !== "no" && config.logging_first_step) due.add(1);
  if (interval === "eval") {
    // eval_delay counts in the unit of the strategy, as in transformers.
    const delaySteps =
      strategy === "epoch" ? Math.ceil(config.eval_delay * stepsPerEpoch) : config.eval_delay;
    for (const step of due) if (step < delaySteps) due.delete(step);
  }
  return due;
}
