import {
  evaluationDelaySteps,
  intervalSteps,
  type ResolvedConfig,
  type SettledConfig,
} from "#lib/config/index";
import { LockstepError } from "#lib/core/errors/index";
import type { TaskedJob } from "#lib/core/job";
import type { TrainingPlan } from "#lib/data/index";
import { stopOf, type WatchRules, type WatchState } from "#lib/objectives/evaluation-watch";
import { bestMetric } from "./objective.js";

/** What a run looks for in its evaluations. @throws E_CONFIG_CONFLICT */
export function evaluationRules(config: ResolvedConfig, job: EvaluatedRun["job"]): WatchRules {
  const advice = { advice: adviceFor(config) };
  if (!tracksBest(config)) return advice;
  const best = bestMetric(config, job);
  const { early_stopping_patience: patience, early_stopping_threshold: threshold } = config;
  return {
    ...advice,
    best: {
      metric: best?.key ?? "loss",
      greaterIsBetter: config.greater_is_better ?? best?.greaterIsBetter ?? false,
    },
    ...(patience === null ? {} : { earlyStopping: { patience, threshold } }),
  };
}

/** Whether evaluations are compared. */
function tracksBest(config: ResolvedConfig): boolean {
  return (
    config.metric_for_best_model !== null ||
    config.load_best_model_at_end ||
    config.early_stopping_patience !== null ||
    config.save_strategy === "best"
  );
}

/** What of the remedies against overfitting a run does not have. */
function adviceFor(config: ResolvedConfig): string {
  const remedies = [
    ...(config.early_stopping_patience === null
      ? ["early_stopping_patience: 2 ends a run there"]
      : []),
    ...(config.load_best_model_at_end
      ? []
      : ["load_best_model_at_end: true makes the best one the result"]),
  ];
  return remedies.length === 0 ? "" : `; ${remedies.join(", and ")} (docs/overfitting.md)`;
}

/** Why a run of this state ended before its last step; undefined where it did not. */
export function stoppedEarly(
  { config, job, plan }: EvaluatedRun,
  state: WatchState & { readonly step: number },
): string | undefined {
  if (state.step >= plan.totalSteps) return undefined;
  return stopOf(evaluationRules(config, job), state);
}

interface EvaluatedRun {
  readonly config: SettledConfig;
  readonly job: Pick<TaskedJob, "objective" | "tasks">;
  readonly plan: TrainingPlan;
}

/** Whether an evaluation comes after a step, where one can. */
export function evaluationSteps(
  config: ResolvedConfig,
  { totalSteps, stepsPerEpoch }: Pick<TrainingPlan, "totalSteps" | "stepsPerEpoch">,
): { readonly everySteps: number; readonly delaySteps: number; readonly numEvaluations: number } {
  const everySteps = intervalSteps(config, "eval", totalSteps, stepsPerEpoch);
  const delaySteps = evaluationDelaySteps(config, stepsPerEpoch);
  if (everySteps === 0) return { everySteps, delaySteps, numEvaluations: 0 };
  const first = Math.max(1, Math.ceil(delaySteps / everySteps));
  const last = Math.floor(totalSteps / everySteps);
  return { everySteps, delaySteps, numEvaluations: Math.max(0, last - first + 1) };
}

/**
 * What a person is told of early stopping before the run.
 *
 * @throws E_CONFIG_CONFLICT where no evaluation comes that could end the run
 */
export function describeEarlyStopping(
  config: ResolvedConfig,
  { plan, job }: Pick<EvaluatedRun, "plan" | "job">,
): readonly string[] {
  const { earlyStopping, best } = evaluationRules(config, job);
  if (earlyStopping === undefined || best === undefined) return [];
  const { totalSteps } = plan;
  const { numEvaluations, everySteps, delaySteps } = evaluationSteps(config, plan);
  if (numEvaluations === 0) {
    const begin = delaySteps > everySteps ? `, from step ${delaySteps} on,` : "";
    throw new LockstepError("E_CONFIG_CONFLICT", {
      keys: "early_stopping_patience and eval_steps",
      reason: `no evaluation comes that could end the run: one every ${everySteps} steps${begin} in a run of ${totalSteps}`,
    });
  }
  const { patience, threshold } = earlyStopping;
  const margin = threshold === 0 ? "" : ` by more than ${threshold}`;
  const rule = `early stopping: after ${patience} evaluation${patience === 1 ? "" : "s"} in a row whose ${best.metric} is not ${best.greaterIsBetter ? "above" : "below"} the best before${margin}`;
  // The first one is compared with nothing, and after the last step there is nothing to leave out.
  const last = totalSteps % everySteps === 0 ? 1 : 0;
  if (numEvaluations - last > patience) return [rule];
  return [
    rule,
    `warning: the run of ${totalSteps} steps has ${numEvaluations} evaluation${numEvaluations === 1 ? "" : "s"}, too few for early_stopping_patience: ${patience} to end it early`,
  ];
}
