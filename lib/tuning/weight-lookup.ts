import type * as tf from "@tensorflow/tfjs-core";
import { LockstepError } from "#lib/core/errors/index";
import type { TensorSlot } from "#lib/core/parameter-layout";
import { isOfTaskHead } from "#lib/core/task-heads";
import type { WorkerJob } from "#lib/core/job";
import { referenceNameOf, referencedName } from "#lib/parameters/reference";
import { type Dropout, resolveWeights, type Weights } from "#lib/models/index";
import type { HeadedModel } from "./objectives/index.js";
import { type TracedParameters, traceParameters } from "./parameters/index.js";

/** Finds what a model asks for among a job's tensors: the trained ones, then the frozen ones. */
export class WeightLookup {
  readonly #model: HeadedModel;
  readonly #parameters: TracedParameters;
  /** Where each tensor is; a checkpoint may name a weight otherwise than the model. */
  readonly #indexOf = new Map<string, number>();
  #used: ReadonlySet<number> | undefined;
  /** The same for the model that the run starts from. */
  readonly #referenceIndexOf = new Map<string, number>();

  /**
   * @param prefix of the names of the head's tensors, where the model has one that is a task's own
   * @throws E_MODEL_TENSOR_MISSING, E_MODEL_TENSOR_UNKNOWN, E_MODEL_UNSUPPORTED
   */
  constructor(model: HeadedModel, job: WorkerJob, prefix = "") {
    this.#model = model;
    this.#parameters = traceParameters(job.parameters);
    const slots = ownTensors([...job.layout.tensors, ...(job.frozen?.tensors ?? [])], prefix);
    const indexOf = new Map(slots.map(({ name, index }) => [name, index]));
    for (const name of this.#parameters.added) this.#indexOf.set(name, indexOf.get(name) ?? -1);
    const weights = slots.filter(
      ({ name }) => !this.#indexOf.has(name) && referencedName(name) === undefined,
    );
    for (const [name, stored] of resolveWeights(model, weights)) {
      this.#indexOf.set(name, indexOf.get(stored) as number);
      const kept = indexOf.get(referenceNameOf(stored)) ?? indexOf.get(stored);
      this.#referenceIndexOf.set(name, kept as number);
    }
  }

  /** Whether the model has a tensor. @param index in the order of the job's layouts */
  has(index: number): boolean {
    this.#used ??= new Set(this.#indexOf.values());
    return this.#used.has(index);
  }

  /**
   * The weights that the run starts from, with nothing beside them.
   *
   * @param tensors in the order of the job's layouts
   */
  reference(tensors: readonly tf.Tensor[]): Weights {
    return (name) => found(tensors[this.#referenceIndexOf.get(name) ?? -1], name);
  }

  /**
   * @param tensors in the order of the job's layouts
   * @param dropout absent outside of training
   */
  in(tensors: readonly tf.Tensor[], dropout?: Dropout): Weights {
    return this.#parameters.weightsFrom(
      (name) => found(tensors[this.#indexOf.get(name) ?? -1], name),
      dropout,
    );
  }

  /**
   * To be called after a forward pass was traced.
   * @throws E_ADAPTER_TARGET for a module that is no linear map of the forward pass, such as an embedding
   */
  checkAllUsed(): void {
    this.#parameters.checkAllUsed(this.#model.modelType);
  }
}

/** The tensors that a model with a head of its own sees, under the names that it has for them. */
function ownTensors(
  slots: readonly TensorSlot[],
  prefix: string,
): readonly (TensorSlot & { readonly index: number })[] {
  const placed = slots.map((slot, index) => ({ ...slot, index }));
  const shared = placed.filter(({ name }) => !isOfTaskHead(name));
  if (prefix === "") return shared;
  const head = placed
    .filter(({ name }) => name.startsWith(prefix))
    .map((slot) => ({ ...slot, name: slot.name.slice(prefix.length) }));
  const isOfHead = new Set(head.map(({ name }) => name));
  return [...shared.filter(({ name }) => !isOfHead.has(name)), ...head];
}

/** @throws E_MODEL_TENSOR_MISSING */
function found(tensor: tf.Tensor | undefined, name: string): tf.Tensor {
  if (tensor !== undefined) return tensor;
  throw new LockstepError("E_MODEL_TENSOR_MISSING", {
    tensor: name,
    expectedShape: "its configuration's",
    got: "no such tensor in the job's parameters",
  });
}
