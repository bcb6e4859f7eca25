import { openAddedTensors } from "#lib/checkpoint/adapter-kind";
import { checkTiedHead } from "#lib/checkpoint/index";
import { isAdapterDirectory } from "#lib/checkpoint/peft/index";
import { isTied, tiedEmbeddingName } from "#lib/models/facts";
import { createModel, type Model, resolveWeights } from "#lib/models/index";
import { openMergedModel } from "./merged-model.js";
import { openTunedModel } from "./tuned-model.js";
import { readModelConfig } from "./model-directory.js";
import { findAdapter, type ModelPlace } from "./model-place.js";
import { openModelWeights } from "./model-weights.js";

/** A model with its weights on disk. */
export interface OpenModel {
  readonly model: Model;
  /** config.json; of a base with an adapter in it, with what the adapter changes. */
  readonly config: Readonly<Record<string, unknown>>;
  /** About the files, for a person. */
  readonly warnings: readonly string[];
  /** A weight's values in float32, by the name that the model gives it. */
  readonly readWeight: (name: string) => Promise<Float32Array>;
  readonly close: () => Promise<void>;
}

/**
 * Opens a Hugging Face model directory, and checks that its weights are those of its configuration. Of
 * an adapter, its base model, with the adapter added into each weight as it is read.
 */
export async function openModel(where: string | ModelPlace): Promise<OpenModel> {
  const place = typeof where === "string" ? await placeOf(where) : where;
  if (place.adapter !== undefined) return openAdapter(place);
  const directory = place.modelDirectory;
  const config = await readModelConfig(directory);
  const model = createModel(config);
  const weights = await openModelWeights(directory);
  try {
    if (model.task === "causal-lm" && isTied(config)) {
      await checkTiedHead(weights, tiedEmbeddingName(weights.names()));
    }
    const stored = resolveWeights(
      model,
      weights.names().map((name) => ({ name, shape: weights.info(name).shape })),
    );
    return {
      model,
      config,
      warnings: [],
      readWeight: (name) => weights.readFloat32(stored.get(name) ?? name),
      close: () => weights.close(),
    };
  } catch (error) {
    await weights.close();
    throw error;
  }
}

async function openAdapter(place: ModelPlace): Promise<OpenModel> {
  const added = await openAddedTensors(place.directory);
  if (added !== undefined) return openTunedModel(place, added);
  const merged = await openMergedModel(place);
  try {
    const model = createModel(merged.config);
    const stored = resolveWeights(model, merged.tensors);
    const tensors = new Map(merged.tensors.map((tensor) => [tensor.name, tensor]));
    return {
      model,
      config: merged.config,
      warnings: merged.warnings,
      readWeight: async (name) => {
        const tensor = tensors.get(stored.get(name) ?? name);
        if (tensor === undefined) throw new RangeError(`the model has no weight ${name}`);
        return tensor.read();
      },
      close: merged.close,
    };
  } catch (error) {
    await merged.close();
    throw error;
  }
}

const placeOf = async (directory: string): Promise<ModelPlace> =>
  isAdapterDirectory(directory)
    ? findAdapter(directory)
    : { directory, modelDirectory: directory, tokenizerDirectory: directory };
