import { LockstepError } from "#lib/core/errors/index";
import { createLlama } from "./llama/index.js";
import type { CausalLanguageModel, WeightSpec } from "./model.js";

export type { CausalLanguageModel, WeightSpec, Weights } from "./model.js";

const architectures: Readonly<
  Record<string, (json: Readonly<Record<string, unknown>>) => CausalLanguageModel>
> = { llama: createLlama };

/** Makes the model that a config.json describes. */
export function createModel(json: Readonly<Record<string, unknown>>): CausalLanguageModel {
  const modelType = json["model_type"];
  const create = typeof modelType === "string" ? architectures[modelType] : undefined;
  if (create === undefined) {
    throw new LockstepError("E_MODEL_UNSUPPORTED", {
      what: `model_type ${JSON.stringify(modelType)} (supported: ${Object.keys(architectures).join(", ")})`,
    });
  }
  return create(json);
}

/**
 * Checks that a checkpoint has exactly the weights of the model.
 *
 * @param found the checkpoint's tensors; those in `ignored` may be there too
 */
export function checkWeights(model: CausalLanguageModel, found: readonly WeightSpec[]): void {
  const byName = new Map(found.map((spec) => [spec.name, spec.shape]));
  for (const { name, shape } of model.weights) {
    const got = byName.get(name);
    byName.delete(name);
    if (got === undefined || got.join() !== shape.join()) {
      throw new LockstepError("E_MODEL_TENSOR_MISSING", {
        tensor: name,
        expectedShape: `[${shape.join(", ")}]`,
        got: got === undefined ? "no such tensor" : `[${got.join(", ")}]`,
      });
    }
  }
  for (const name of byName.keys()) {
    // Old checkpoints store the rotary frequencies, and a tied head again; both are derived.
    if (name.endsWith("rotary_emb.inv_freq") || name === "lm_head.weight") continue;
    throw new LockstepError("E_MODEL_TENSOR_UNKNOWN", { tensor: name, model: model.modelType });
  }
}
