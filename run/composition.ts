import type { SettledConfig } from "#lib/config/index";
import type { TrainingPlan } from "#lib/data/index";
import type { OptimizerSettings } from "#lib/optim/update-rule";
import { type ChosenParameters, parametersKindOf, type StartingModel } from "#lib/parameters/index";
import { optimizerSettings } from "./optimizer-settings.js";

/** The parts of a run that a configuration names, but for its data: one of each. */
export interface Composition {
  /** What is trained, and how it is saved. */
  readonly parameters: ChosenParameters;
  readonly optimizer: OptimizerSettings;
}

/** Resolves a configuration into the parts of a run over a model. @throws what a part refuses */
export function compose(
  config: SettledConfig,
  model: StartingModel,
  plan: TrainingPlan,
): Composition {
  return {
    parameters: parametersKindOf(config).choose(config, model, {
      wireDtype: config.wire_dtype,
      frozenDtype: config.bf16 ? "bfloat16" : "float32",
      seed: config.seed,
    }),
    optimizer: optimizerSettings(config, plan.totalSteps),
  };
}
