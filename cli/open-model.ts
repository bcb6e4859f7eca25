import { checkTiedHead, ModelWeights } from "#lib/checkpoint/index";
import { isTied } from "#lib/models/checkpoint-names";
import { createModel, type Model, resolveWeights } from "#lib/models/index";
import { readModelConfig } from "./model-directory.js";

/** A model with its weights on disk. */
export interface OpenModel {
  readonly model: Model;
  /** A weight's values in float32, by the name that the model gives it. */
  readonly readWeight: (name: string) => Promise<Float32Array>;
  readonly close: () => Promise<void>;
}

/** Opens a Hugging Face model directory, and checks that its weights are those of its configuration. */
export async function openModel(directory: string): Promise<OpenModel> {
  const config = await readModelConfig(directory);
  const model = createModel(config);
  const weights = await ModelWeights.open(directory);
  try {
    if (model.task === "causal-lm" && isTied(config)) await checkTiedHead(weights);
    const stored = resolveWeights(
      model,
      weights.names().map((name) => ({ name, shape: weights.info(name).shape })),
    );
    return {
      model,
      readWeight: (name) => weights.readFloat32(stored.get(name) ?? name),
      close: () => weights.close(),
    };
  } catch (error) {
    await weights.close();
    throw error;
  }
}
