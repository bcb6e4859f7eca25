import type * as tf from "@tensorflow/tfjs-core";
import { LockstepError } from "#lib/core/errors/index";
import type { ParametersJob } from "#lib/core/job";
import { parametersNames } from "#lib/parameters/index";
import type { Dropout, Model, Weights } from "#lib/models/index";
import { adapter } from "./adapter.js";
import { lora } from "./lora.js";
import { prompt } from "./prompt.js";

/** How a model sees what a run trains, where that is more than weights of its own. */
export interface TracedParameters {
  /** Names of the job's tensors that are no weights of the model. */
  readonly added: readonly string[];
  /**
   * The model's view.
   *
   * @param found any of the job's tensors, or a weight by its name in the model
   * @param dropout absent outside of training
   */
  weightsFrom(found: (name: string) => tf.Tensor, dropout?: Dropout): Weights;
  /** The model, where its pass is another one by more than its weights. */
  modelFrom?<M extends Model>(model: M): M;
  /**
   * To be called after a forward pass was traced.
   * @throws LockstepError for what the pass did not use
   */
  checkAllUsed(modelType: string): void;
}

/** Reads a job that a kind of `lib/parameters` of the same name made. */
type TraceParameters = (job: ParametersJob) => TracedParameters;

/** The kinds whose forward pass is another one, one a line. */
export const tracedParameters: Readonly<Record<string, TraceParameters>> = {
  adapter,
  lora,
  prompt,
};

const plain: TracedParameters = {
  added: [],
  weightsFrom: (found) => found,
  checkAllUsed: () => {},
};

/** @throws E_MODEL_UNSUPPORTED for a kind that is not here */
export function traceParameters(job: ParametersJob): TracedParameters {
  const { kind } = job;
  if (Object.hasOwn(tracedParameters, kind)) {
    return (tracedParameters[kind] as TraceParameters)(job);
  }
  if (parametersNames.includes(kind)) return plain;
  throw new LockstepError("E_MODEL_UNSUPPORTED", { what: `finetuning_type ${kind}` });
}
