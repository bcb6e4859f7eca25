import {
  greedyMinimumRate,
  type MetricScheduleName,
  metricSchedule,
} from "#lib/optim/metric-schedules";
import { learningRateAt, type ScheduleName } from "#lib/optim/schedules";
import type { ConfigKey, ParsedConfig } from "./fields.js";
import type { SourcedValue } from "./flags.js";
import { followsMetric } from "./schedule-names.js";

/**
 * Tells of a warm-up that the schedule does not have, in transformers neither, and of a rate that cannot fall.
 *
 * @throws E_CONFIG_INVALID for arguments that the schedule does not have, whatever the length of the run;
 *   E_CONFIG_CONFLICT
 */
export function checkSchedule(
  config: ParsedConfig,
  given: ReadonlyMap<ConfigKey, SourcedValue>,
  warnings: string[],
): void {
  const { lr_scheduler_type: name, warmup_steps: warmupSteps, learning_rate: rate } = config;
  checkArguments(config);
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

/** Arguments are refused before data is read, though rates are only made when the run's length is known. */
function checkArguments(config: ParsedConfig): void {
  const { lr_scheduler_type: name, lr_scheduler_kwargs, learning_rate: learningRate } = config;
  const kwargs = lr_scheduler_kwargs ?? {};
  if (followsMetric(config)) {
    metricSchedule(name as MetricScheduleName, "loss", { learningRate, kwargs });
    return;
  }
  const lengths = { warmupSteps: config.warmup_steps, totalSteps: 1 };
  const schedule = { baseLearningRate: learningRate, ...lengths, kwargs };
  learningRateAt(name as ScheduleName, schedule, 0);
}
