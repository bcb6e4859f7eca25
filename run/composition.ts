import { isConfigKey, isGiven, type SettledConfig } from "#lib/config/index";
import type { ParameterLayout } from "#lib/core/parameter-layout";
import { computeDtypes, precisionOf } from "#lib/core/dtype";
import type { TrainingPlan } from "#lib/data/index";
import { type Objective, objectiveOf } from "#lib/objectives/index";
import type { UpdateSettings } from "#lib/optim/index";
import { isEmbeddingTable } from "#lib/models/facts";
import {
  type ChosenParameters,
  parametersKindOf,
  ratesOf,
  unfreezingOf,
  type StartingModel,
} from "#lib/parameters/index";
import { withReference } from "#lib/parameters/reference";
import { bestMetric } from "./objective.js";
import type { PreparedData } from "./prepare-data.js";
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
    data,
    plan,
  }: {
    readonly model: StartingModel;
    readonly data: Pick<PreparedData, "objective" | "tasks" | "lossTerms">;
    readonly plan: TrainingPlan;
  },
): Composition {
  const objective = objectiveOf(data.objective.kind);
  const hasReference = (data.tasks ?? [data]).some(
    (task) => objectiveOf(task.objective.kind).hasReference === true,
  );
  // Refuses a metric that the objective does not have.
  const best = bestMetric(config, data);
  const rates = ratesOf(config, { weights: model.weights, isEmbeddingTable });
  const unfreezing = unfreezingOf(config, { isEmbeddingTable, stepsPerEpoch: plan.stepsPerEpoch });
  const chosen = parametersKindOf(config).choose(config, model, {
    wireDtype: config.wire_dtype,
    frozenDtype: computeDtypes[precisionOf(config)],
    rules: { rateOf: rates.rateOf, ...unfreezing.rules },
    seed: config.seed,
    isGiven: (key) => isConfigKey(key) && isGiven(config, key),
  });
  const parameters = hasReference
    ? withReference(chosen, model, computeDtypes[precisionOf(config)])
    : chosen;
  const { lines: told, openings } = unfreezing.describe(parameters.layout, plan.totalSteps);
  const lines = [
    ...parameters.lines,
    ...rates.describe(parameters.layout),
    ...told,
    ...idleDecay(config, parameters.layout),
  ];
  return {
    objective,
    parameters: { ...parameters, lines },
    updates: {
      ...updateSettings(config, {
        ...{ totalSteps: plan.totalSteps, best, lossTerms: data.lossTerms },
      }),
      ...(openings.length === 0 ? {} : { openings }),
    },
  };
}

/** Biases alone have no decay: of vectors transformers decays none. */
const idleDecay = (
  { weight_decay: decay }: SettledConfig,
  { regions }: ParameterLayout,
): readonly string[] =>
  decay === 0 || regions.some(({ decays }) => decays)
    ? []
    : ["warning: weight_decay has no effect: all that is trained are biases and norms"];
