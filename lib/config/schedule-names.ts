import { metricScheduleNames } from "#lib/optim/metric-schedules";
import { scheduleNames } from "#lib/optim/schedules";

/** All values of `lr_scheduler_type`: those of transformers, and `slanted_triangular`. */
export const schedulerNames = [...scheduleNames, ...metricScheduleNames] as const;

/** Whether the rate follows a metric of evaluations. */
export const followsMetric = ({
  lr_scheduler_type: name,
}: {
  readonly lr_scheduler_type: string;
}): boolean => metricScheduleNames.some((each) => each === name);
