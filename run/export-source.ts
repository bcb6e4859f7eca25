import { checkTiedHead, type ModelTensor } from "#lib/checkpoint/index";
import { readCheckpointRecord, readOutputRecord } from "#lib/checkpoint/run-record";
import type { FloatDtype } from "#lib/core/dtype";
import type { Nf4Form } from "#lib/core/nf4";
import { isDerivedTensor } from "#lib/core/derived-tensors";
import { isTied, tiedEmbeddingName } from "#lib/models/facts";
import { createModel, resolveWeights } from "#lib/models/index";
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

/** What an export wrote, to be compared. */
export interface WrittenWeights {
  /** A weight by its name in the source, in the source's form, float32. */
  readonly readFloat32: (name: string) => Promise<Float32Array>;
  readonly close: () => Promise<void>;
}

/**
 * @param quantisation the form of 4 bits through which an adapter's base is taken first
 * @throws E_MODEL_UNSUPPORTED for a tied head with values of its own, E_MODEL_TENSOR_MISSING for weights that are not
 *   those of config.json, E_ADAPTER_TENSOR for an adapter of another
 *   model, and what opening either throws
 */
export async function openExportSource(
  place: ModelPlace,
  quantisation?: Nf4Form,
): Promise<ExportSource> {
  const source = await (place.adapter === undefined
    ? openModelSource(place)
    : openAdapterSource(place, quantisation));
  try {
    checkShapes(source);
    return source;
  } catch (error) {
    await source.close();
    throw error;
  }
}

/**
 * A config.json that describes another model than the weights beside it is found here, and not by who loads the
 * result.
 *
 * @throws E_MODEL_TENSOR_MISSING
 */
function checkShapes({ config, tensors }: ExportSource): void {
  try {
    resolveWeights(createModel(config), tensors);
  } catch (error) {
    // What is no model of ours is copied as it is, and so are weights that a model of ours has no use for.
    const { code } = error as { readonly code?: unknown };
    if (code !== "E_MODEL_UNSUPPORTED" && code !== "E_MODEL_TENSOR_UNKNOWN") throw error;
  }
}

async function openAdapterSource(place: ModelPlace, quantisation?: Nf4Form): Promise<ExportSource> {
  const { numModules, unmerged, ...merged } = await openMergedModel(place, quantisation);
  const isOtherBase = quantisation === undefined && (await wasTrainedIn4Bits(place.directory));
  return {
    ...merged,
    adapter: { numModules, unmerged },
    warnings: [...merged.warnings, ...(isOtherBase ? [trainedIn4Bits] : [])],
  };
}

async function openModelSource(place: ModelPlace): Promise<ExportSource> {
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

const trainedIn4Bits =
  "the adapter was trained beside weights of 4 bits, and merged into the base as it is stored; " +
  "--load-in-4bit merges it into what it was trained beside";

/** What the run wrote down that saved the adapter; false where nothing stands beside it. */
async function wasTrainedIn4Bits(directory: string): Promise<boolean> {
  const record = (await readOutputRecord(directory)) ?? (await readCheckpointRecord(directory));
  return record?.identity.settings["load_in_4bit"] === true;
}
