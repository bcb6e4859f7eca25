import {
  chosenOptimizer,
  followsMetric,
  type ResolvedConfig,
  resolveSteps,
} from "#lib/config/index";
import { LockstepError } from "#lib/core/errors/index";
import type { Metric } from "#lib/objectives/index";
import {
  gradScalerDefaults,
  learningRateAt,
  type LossTermsSettings,
  type MetricSchedule,
  type MetricScheduleName,
  metricSchedule,
  type ScheduleContext,
  type ScheduleName,
  type UpdateSettings,
} from "#lib/optim/index";

/** What a schedule may have to know of the run. */
interface ScheduledRun {
  readonly totalSteps: number;
  /** What evaluations are compared by; undefined: the loss. */
  readonly best: Metric | undefined;
  readonly lossTerms?: LossTermsSettings | undefined;
}

/**
 * @throws E_CONFIG_INVALID for arguments that the schedule does not have; E_CONFIG_CONFLICT where it follows a
 *   metric the wrong way
 */
export function updateSettings(config: ResolvedConfig, run: ScheduledRun): UpdateSettings {
  return {
    optimizer: {
      ...chosenOptimizer(config),
      ...(config.ema_decay === null ? {} : { emaDecay: config.ema_decay }),
      ...(config.ewc_lambda === 0 ? {} : { ewcLambda: config.ewc_lambda }),
    },
    ...(followsMetric(config)
      ? {
          learningRateAt: () => config.learning_rate,
          metricSchedule: metricScheduleOf(config, run),
        }
      : { learningRateAt: scheduleOf(config, run) }),
    maxGradNorm: config.max_grad_norm,
    ...(config.fp16 === true ? { lossScaling: gradScalerDefaults } : {}),
    ...(run.lossTerms === undefined ? {} : { lossTerms: run.lossTerms }),
  };
}

function scheduleOf(
  config: ResolvedConfig,
  { totalSteps }: ScheduledRun,
): (completedUpdates: number) => number {
  const schedule: ScheduleContext = {
    baseLearningRate: config.learning_rate,
    warmupSteps: resolveSteps(config.warmup_steps, totalSteps),
    totalSteps,
    ...(config.lr_scheduler_kwargs === null ? {} : { kwargs: config.lr_scheduler_kwargs }),
  };
  const rateAt = (completedUpdates: number): number =>
    learningRateAt(config.lr_scheduler_type as ScheduleName, schedule, completedUpdates);
  checkRates(config, rateAt, totalSteps);
  return rateAt;
}

/** A rate that is no number would make weights of the same kind, and nothing would tell of it. */
function checkRates(
  { lr_scheduler_type: name, lr_scheduler_kwargs: kwargs, learning_rate }: ResolvedConfig,
  rateAt: (completedUpdates: number) => number,
  totalSteps: number,
): void {
  for (let update = 0; update < totalSteps; update++) {
    const rate = rateAt(update);
    if (rate >= 0 && Number.isFinite(rate)) continue;
    throw new LockstepError("E_CONFIG_INVALID", {
      ...{ key: "lr_scheduler_kwargs", where: "" },
      expected: `arguments of ${name} with which every rate is a number of at least 0 (that of update ${update + 1} of ${totalSteps} would be ${rate}, with learning_rate ${learning_rate})`,
      got: JSON.stringify(kwargs),
    });
  }
}

function metricScheduleOf(config: ResolvedConfig, { best }: ScheduledRun): MetricSchedule {
  const { lr_scheduler_type: name, learning_rate: learningRate, lr_scheduler_kwargs } = config;
  const schedule = metricSchedule(name as MetricScheduleName, best?.key ?? "loss", {
    ...{ learningRate, kwargs: lr_scheduler_kwargs },
  });
  // transformers would follow an accuracy downwards, since mode is min where nobody says otherwise.
  const greaterIsBetter = config.greater_is_better ?? best?.greaterIsBetter ?? false;
  if (schedule.isLowerBetter === greaterIsBetter) {
    const [mode, other] = greaterIsBetter ? ["min", "max"] : ["max", "min"];
    throw new LockstepError("E_CONFIG_CONFLICT", {
      keys: "lr_scheduler_kwargs and metric_for_best_model",
      reason: `mode is ${mode}, and ${greaterIsBetter ? "more" : "less"} of ${schedule.metric} is better: write mode: ${other} into lr_scheduler_kwargs`,
    });
  }
  return schedule;
}
