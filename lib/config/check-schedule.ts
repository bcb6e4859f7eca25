import { greedyMinimumRate } from "#lib/optim/metric-schedules";
import type { ConfigKey, ParsedConfig } from "./fields.js";
import type { SourcedValue } from "./flags.js";
import { followsMetric } from "./schedule-names.js";

/** Tells of a warm-up that the schedule does not have, in transformers neither, and of a rate that cannot fall. */
export function checkSchedule(
  config: ParsedConfig,
  given: ReadonlyMap<ConfigKey, SourcedValue>,
  warnings: string[],
): void {
  const { lr_scheduler_type: name, warmup_steps: warmupSteps, learning_rate: rate } = config;
  const warmup = given.get("warmup_steps");
  const hasNoWarmup = name === "constant" || followsMetric(config);
  if (warmup !== undefined && warmupSteps > 0 && hasNoWarmup) {
    warnings.push(`${warmup.where}: warmup_steps has no effect: ${name} has no warm-up`);
  }
  const minimum = config.lr_scheduler_kwargs?.["min_lr"] ?? greedyMinimumRate;
  if (name === "greedy" && typeof minimum === "number" && minimum >= rate) {
    const where = given.get("lr_scheduler_type")?.where ?? "";
    warnings.push(
      `${where}: greedy never lowers learning_rate (${rate}): min_lr of lr_scheduler_kwargs is ${minimum}`,
    );
  }
}
