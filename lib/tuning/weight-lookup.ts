import type * as tf from "@tensorflow/tfjs-core";
import { LockstepError } from "#lib/core/errors/index";
import { loraWeightName, type WorkerJob } from "#lib/core/job";
import { type Adapter, resolveWeights, type Weights } from "#lib/models/index";
import type { HeadedModel } from "./objectives/index.js";

/** Finds a model's weights and adapters among a job's tensors: the trained ones, then the frozen ones. */
export class WeightLookup {
  readonly #model: HeadedModel;
  /** Where each tensor is; a checkpoint may name a weight otherwise than the model. */
  readonly #indexOf = new Map<string, number>();
  readonly #scales: ReadonlyMap<string, number>;
  readonly #unused: Set<string>;

  /** @throws E_MODEL_TENSOR_MISSING, E_MODEL_TENSOR_UNKNOWN */
  constructor(model: HeadedModel, job: WorkerJob) {
    this.#model = model;
    this.#scales = new Map(Object.entries(job.lora?.scales ?? {}));
    this.#unused = new Set(this.#scales.keys());
    const slots = [...job.layout.tensors, ...(job.frozen?.tensors ?? [])];
    const indexOf = new Map(slots.map(({ name }, index) => [name, index]));
    for (const path of this.#scales.keys()) {
      for (const matrix of ["A", "B"] as const) {
        const name = loraWeightName(path, matrix);
        this.#indexOf.set(name, indexOf.get(name) ?? -1);
      }
    }
    const weights = slots.filter(({ name }) => !this.#indexOf.has(name));
    for (const [name, stored] of resolveWeights(model, weights)) {
      this.#indexOf.set(name, indexOf.get(stored) as number);
    }
  }

  /** @param tensors in the order of the job's layouts */
  in(tensors: readonly tf.Tensor[]): Weights {
    const found = (name: string): tf.Tensor => {
      const tensor = tensors[this.#indexOf.get(name) ?? -1];
      if (tensor !== undefined) return tensor;
      throw new LockstepError("E_MODEL_TENSOR_MISSING", {
        tensor: name,
        expectedShape: "its configuration's",
        got: "no such tensor in the job's parameters",
      });
    };
    const adapterOf = (module: string): Adapter | undefined => {
      const scale = this.#scales.get(module);
      if (scale === undefined) return undefined;
      this.#unused.delete(module);
      const [a, b] = [found(loraWeightName(module, "A")), found(loraWeightName(module, "B"))];
      return { a, b, scale };
    };
    return Object.assign(found, { adapterOf });
  }

  /**
   * To be called after a forward pass was traced.
   * @throws E_ADAPTER_TARGET for a module that is no linear map of the forward pass, such as an embedding
   */
  checkAllUsed(): void {
    const [module] = this.#unused;
    if (module === undefined) return;
    const problem = `${module} of this ${this.#model.modelType} model takes no adapter`;
    throw new LockstepError("E_ADAPTER_TARGET", { problem });
  }
}
