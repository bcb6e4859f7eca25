import { scheduleNames } from "#lib/optim/schedules";

/** Names of `lr_scheduler_type` in transformers that need a metric of evaluations. */
const ofMetric = ["reduce_lr_on_plateau", "greedy"] as const;
export const metricSchedulerNames: readonly string[] = ofMetric;

/** All names of `lr_scheduler_type`, as in transformers. */
export const schedulerNames = [...scheduleNames, ...ofMetric] as const;
