/** Names of `lr_scheduler_type`, as in transformers; `reduce_lr_on_plateau` and `greedy` need a metric. */
export const schedulerNames = [
  "linear",
  "cosine",
  "cosine_with_restarts",
  "polynomial",
  "constant",
  "constant_with_warmup",
  "inverse_sqrt",
  "reduce_lr_on_plateau",
  "cosine_with_min_lr",
  "cosine_warmup_with_min_lr",
  "warmup_stable_decay",
  "greedy",
] as const;

type SchedulerName = (typeof schedulerNames)[number];

export const metricSchedulerNames: readonly SchedulerName[] = ["reduce_lr_on_plateau", "greedy"];
