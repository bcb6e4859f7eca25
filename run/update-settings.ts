import { chosenOptimizer, type ResolvedConfig, resolveSteps } from "#lib/config/index";
import {
  gradScalerDefaults,
  learningRateAt,
  type ScheduleContext,
  type ScheduleName,
  type UpdateSettings,
} from "#lib/optim/index";

/** @throws E_CONFIG_INVALID for arguments that the schedule does not have */
export function updateSettings(config: ResolvedConfig, totalSteps: number): UpdateSettings {
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
    optimizer: chosenOptimizer(config),
    learningRateAt: rateAt,
    maxGradNorm: config.max_grad_norm,
    ...(config.fp16 === true ? { lossScaling: gradScalerDefaults } : {}),
  };
}
