import type { AddedTensors } from "#lib/checkpoint/added-tensors";
import { checkBaseDigest } from "#lib/checkpoint/base-digest";
import { checkTiedHead } from "#lib/checkpoint/index";
import { LockstepError } from "#lib/core/errors/index";
import { countLayers } from "#lib/parameters/layers";
import { factsOf, isTied, tiedEmbeddingName } from "#lib/models/facts";
import { createModel, resolveWeights } from "#lib/models/index";
import { tunedModel } from "#lib/tuning/parameters/tuned-model";
import { baseDigest, classifierOf } from "./merged-model.js";
import { readModelConfig } from "./model-directory.js";
import type { ModelPlace } from "./model-place.js";
import { openModelWeights } from "./model-weights.js";
import type { OpenModel } from "./open-model.js";

/**
 * Opens a base model with tensors of an adapter beside its weights.
 *
 * @param added closed with the model, and where it cannot be opened
 * @throws E_ADAPTER_TENSOR, E_ADAPTER_BASE for an adapter of another model, and what opening the base throws
 */
export async function openTunedModel(
  { modelDirectory, adapter }: ModelPlace,
  added: AddedTensors,
): Promise<OpenModel> {
  const opened: { close: () => Promise<void> }[] = [added];
  const close = async (): Promise<void> => {
    for (const each of opened) await each.close();
  };
  try {
    const baseConfig = await readModelConfig(modelDirectory);
    const weights = await openModelWeights(modelDirectory);
    opened.push(weights);
    const head = added.isClassifier ? await classifierOf(baseConfig, weights, added) : undefined;
    if (head === undefined && isTied(baseConfig)) {
      await checkTiedHead(weights, tiedEmbeddingName(weights.names()));
    }
    await checkBaseDigest(added, adapter?.base ?? modelDirectory, () =>
      baseDigest(weights, baseConfig, head),
    );
    const config = { ...baseConfig, ...head?.configChanges };
    const plain = createModel(config);
    const saved = new Set(added.savedWeights);
    const ofBase = weights
      .names()
      .filter((name) => head?.isOfModel(name) !== false && !saved.has(name))
      .map((name) => ({ name, shape: weights.info(name).shape }));
    const ofAdapter = [...saved].map((name) => ({ name, shape: added.savedInfo(name).shape }));
    const stored = resolveWeights(plain, [...ofBase, ...ofAdapter]);
    const used = new Set(stored.values());
    const idle = added.savedWeights.find((name) => !used.has(name));
    if (idle !== undefined) {
      throw new LockstepError("E_ADAPTER_TENSOR", {
        ...{ directory: added.directory, tensor: idle },
        problem: `is no weight of this ${plain.modelType} model with its ${plain.task} head`,
      });
    }
    const table = plain.weights.find(({ name }) => name === factsOf(config)?.tokenEmbedding);
    const [vocabSize = 0, width = 0] = table?.shape ?? [];
    const model = tunedModel(
      plain,
      added.jobFor({
        ...{ vocabSize, width, bottlenecks: factsOf(config)?.bottlenecks },
        numLayers: countLayers(plain.weights),
      }),
      added.added,
    );
    const addedNames = new Set(added.added.map(({ name }) => name));
    return {
      model,
      config,
      warnings: added.warnings,
      readWeight: async (name) => {
        if (addedNames.has(name)) return added.readAdded(name);
        const source = stored.get(name) ?? name;
        if (saved.has(source)) return added.readSaved(source);
        return weights.readFloat32(source);
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}
