import { type ResolvedConfig, resolveSteps } from "#lib/config/index";
import { learningRateAt, type ScheduleContext, type ScheduleName } from "#lib/optim/schedules";
import type { OptimizerSettings } from "#lib/optim/update-rule";

/** @throws E_CONFIG_INVALID for arguments that the schedule does not have */
export function optimizerSettings(config: ResolvedConfig, totalSteps: number): OptimizerSettings {
  const schedule: ScheduleContext = {
    baseLearningRate: config.learning_rate,
    warmupSteps: resolveSteps(config.warmup_steps, totalSteps),
    totalSteps,
    ...(config.lr_scheduler_kwargs === null ? {} : { kwargs: config.lr_scheduler_kwargs }),
  };
  const rateAt = (completedUpdates: number): number =>
    learningRateAt(config.lr_scheduler_type as ScheduleName, schedule, completedUpdates);
  // Refuses unknown arguments of the schedule before anything is started.
  rateAt(0);
  return {
    learningRateAt: rateAt,
    beta1: config.adam_beta1,
    beta2: config.adam_beta2,
    epsilon: config.adam_epsilon,
    weightDecay: config.weight_decay,
    maxGradNorm: config.max_grad_norm,
  };
}
