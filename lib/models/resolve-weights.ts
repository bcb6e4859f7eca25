import { isDerivedTensor } from "#lib/core/derived-tensors";
import { LockstepError } from "#lib/core/errors/index";
import { isEncoder } from "./facts.js";
import type { Model, WeightSpec } from "./model.js";

/**
 * Finds the model's weights among a checkpoint's tensors. Some checkpoints leave out the prefix of
 * the base model (those of a base model alone, the first GPT-2 files), and BERT's first files call a
 * norm's weight and bias gamma and beta.
 *
 * @returns the tensor's name in the checkpoint by the weight's name in the model
 * @throws E_MODEL_TENSOR_MISSING, E_MODEL_TENSOR_UNKNOWN
 */
export function resolveWeights(
  model: Model,
  found: readonly WeightSpec[],
): ReadonlyMap<string, string> {
  const shapes = new Map(found.map((spec) => [spec.name, spec.shape]));
  const resolved = new Map<string, string>();
  for (const { name, shape } of model.weights) {
    const stored = namesOf(model, name).find((candidate) => shapes.has(candidate));
    const got = stored === undefined ? undefined : shapes.get(stored);
    if (stored === undefined || got?.join() !== shape.join()) {
      throw new LockstepError("E_MODEL_TENSOR_MISSING", {
        tensor: name,
        expectedShape: `[${shape.join(", ")}]`,
        got: got === undefined ? "no such tensor" : `[${got.join(", ")}]`,
      });
    }
    shapes.delete(stored);
    resolved.set(name, stored);
  }
  for (const name of shapes.keys()) {
    if (isDerivedTensor(name) || isOtherHead(model, name)) continue;
    throw new LockstepError("E_MODEL_TENSOR_UNKNOWN", { tensor: name, model: model.modelType });
  }
  return resolved;
}

/** Names that a weight may have in a checkpoint, the usual one first. */
function namesOf(model: Model, name: string): readonly string[] {
  const { basePrefix } = model;
  const names = [name];
  if (basePrefix !== "" && name.startsWith(basePrefix)) names.push(name.slice(basePrefix.length));
  return names.flatMap((candidate) => [
    candidate,
    ...(candidate.includes("LayerNorm.")
      ? [
          candidate
            .replace(/LayerNorm\.weight$/, "LayerNorm.gamma")
            .replace(/LayerNorm\.bias$/, "LayerNorm.beta"),
        ]
      : []),
  ]);
}

/** Whether a tensor belongs to a head that the task does not use, or repeats a tied one. */
function isOtherHead(model: Model, name: string): boolean {
  if (name === "lm_head.weight") return true;
  if (!isEncoder({ model_type: model.modelType })) return false;
  const { basePrefix } = model;
  const bare = name.startsWith(basePrefix) ? name.slice(basePrefix.length) : name;
  // The masked-word head, next-sentence head and pooler of pretraining.
  return /^(cls\.|lm_head\.|vocab_)/.test(name) || bare.startsWith("pooler.");
}
