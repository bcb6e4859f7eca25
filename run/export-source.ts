import { checkTiedHead, type ModelTensor } from "#lib/checkpoint/index";
import type { FloatDtype } from "#lib/core/dtype";
import { isDerivedTensor } from "#lib/core/derived-tensors";
import { isTied, tiedEmbeddingName } from "#lib/models/facts";
import { openMergedModel, type UnmergedModel } from "./merged-model.js";
import { readModelConfig } from "./model-directory.js";
import type { ModelPlace } from "./model-place.js";
import { openModelWeights } from "./model-weights.js";

type Json = Readonly<Record<string, unknown>>;

/** A model that is to be written in another form, or an adapter in its base model. */
export interface ExportSource {
  /** config.json of the whole. */
  readonly config: Json;
  /** What it has beside or instead of the one in the model's directory. */
  readonly configChanges: Json;
  /** Its weights under the names of today's transformers, each made when it is asked for. */
  readonly tensors: readonly ModelTensor[];
  /** Type in which the model is stored. */
  readonly dtype: FloatDtype;
  /** Of an adapter. */
  readonly adapter?: { readonly numModules: number; readonly unmerged: UnmergedModel };
  /** About the files, for a person. */
  readonly warnings: readonly string[];
  readonly close: () => Promise<void>;
}

/**
 * @throws E_MODEL_UNSUPPORTED for a tied head with values of its own, E_ADAPTER_TENSOR for an adapter of another
 *   model, and what opening either throws
 */
export async function openExportSource(place: ModelPlace): Promise<ExportSource> {
  if (place.adapter !== undefined) {
    const { numModules, unmerged, ...merged } = await openMergedModel(place);
    return { ...merged, adapter: { numModules, unmerged } };
  }
  const config = await readModelConfig(place.modelDirectory);
  const weights = await openModelWeights(place.modelDirectory);
  try {
    const names = weights.names().filter((name) => !isDerivedTensor(name));
    if (isTied(config)) await checkTiedHead(weights, tiedEmbeddingName(names));
    return {
      config,
      configChanges: {},
      tensors: names.map((name) => ({
        name,
        shape: weights.info(name).shape,
        read: () => weights.readFloat32(name),
      })),
      dtype: weights.dtype(),
      warnings: [],
      close: () => weights.close(),
    };
  } catch (error) {
    await weights.close();
    throw error;
  }
}
