import type { ParametersJob } from "#lib/core/job";
import type { Model, Weights, WeightSpec } from "#lib/models/index";
import { traceParameters } from "./index.js";

/**
 * A model with what was trained beside its weights, as a model: `added` are weights of it.
 *
 * @throws E_MODEL_UNSUPPORTED for a kind that is not here
 */
export function tunedModel(model: Model, job: ParametersJob, added: readonly WeightSpec[]): Model {
  const { weightsFrom, modelFrom } = traceParameters(job);
  const seen = (weights: Weights): Weights => weightsFrom((name) => weights(name));
  const changed = modelFrom?.(model) ?? model;
  const common = {
    weights: [...model.weights, ...added],
    hiddenStates: ((weights, inputs) =>
      changed.hiddenStates(seen(weights), inputs)) satisfies Model["hiddenStates"],
  };
  switch (changed.task) {
    case "causal-lm":
      return Object.freeze({
        ...changed,
        ...common,
        outputProjection: (weights) => changed.outputProjection(seen(weights)),
      } satisfies Model);
    case "sequence-classification":
      return Object.freeze({
        ...changed,
        ...common,
        logits: (weights, inputs, hidden_BTD) => changed.logits(seen(weights), inputs, hidden_BTD),
      } satisfies Model);
    case "feature-extraction":
      return Object.freeze({ ...changed, ...common });
  }
}
