import type { SettledConfig } from "#lib/config/index";
import { computeDtypes, precisionOf } from "#lib/core/dtype";
import type { ObjectiveJob } from "#lib/core/job";
import type { TrainingPlan } from "#lib/data/index";
import { type Objective, objectiveOf } from "#lib/objectives/index";
import type { UpdateSettings } from "#lib/optim/index";
import { type ChosenParameters, parametersKindOf, type StartingModel } from "#lib/parameters/index";
import { bestMetric } from "./objective.js";
import { updateSettings } from "./update-settings.js";

/** The parts of a run that a configuration names, one of each; the fourth is its data. */
export interface Composition {
  /** What is learnt of the rows. */
  readonly objective: Objective;
  /** What is trained, and how it is saved. */
  readonly parameters: ChosenParameters;
  /** The optimizer, with what each update of it needs. */
  readonly updates: UpdateSettings;
}

/** Resolves a configuration into the parts of a run over a model. @throws what a part refuses */
export function compose(
  config: SettledConfig,
  {
    model,
    objective: { kind },
    plan,
  }: {
    readonly model: StartingModel;
    readonly objective: ObjectiveJob;
    readonly plan: TrainingPlan;
  },
): Composition {
  const objective = objectiveOf(kind);
  // Refuses a metric that the objective does not have.
  bestMetric(config, objective);
  return {
    objective,
    parameters: parametersKindOf(config).choose(config, model, {
      wireDtype: config.wire_dtype,
      frozenDtype: computeDtypes[precisionOf(config)],
      seed: config.seed,
    }),
    updates: updateSettings(config, plan.totalSteps),
  };
}
