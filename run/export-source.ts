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
  const base = {
    trained: await trainedForm(place.directory),
    merged: quantisation ?? ("wide" as const),
  };
  return {
    ...merged,
    adapter: { numModules, unmerged },
    warnings: [...merged.warnings, ...otherBaseLines(base)],
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

/** What linear weights of a base are: as they are stored, or taken through a code of 4 bits. */
type BaseForm = Nf4Form | "wide";

const formNames: Readonly<Record<BaseForm, string>> = {
  wide: "as they are stored",
  nf4: "of 4 bits",
  "nf4-double": "of 4 bits with scales in 8 bits",
};
const formFlags: Readonly<Record<BaseForm, string>> = {
  wide: "without --load-in-4bit it is merged into what it was trained beside",
  nf4: "--load-in-4bit merges it into what it was trained beside",
  "nf4-double":
    "--load-in-4bit --bnb-4bit-use-double-quant merges it into what it was trained beside",
};

/** A line for a person where an adapter is merged into another form of its base than it was trained beside. */
function otherBaseLines({
  trained,
  merged,
}: {
  readonly trained: BaseForm | undefined;
  readonly merged: BaseForm;
}): readonly string[] {
  if (trained === undefined || trained === merged) return [];
  return [
    `the adapter was trained beside weights ${formNames[trained]}, and merged into weights ${formNames[merged]}; ${formFlags[trained]}`,
  ];
}

/** By what the run wrote down that saved the adapter; undefined where nothing stands beside it. */
async function trainedForm(directory: string): Promise<BaseForm | undefined> {
  const record = (await readOutputRecord(directory)) ?? (await readCheckpointRecord(directory));
  if (record === undefined) return undefined;
  const { load_in_4bit: isQuantised, bnb_4bit_use_double_quant: isDouble } =
    record.identity.settings;
  if (isQuantised !== true) return "wide";
  return isDouble === true ? "nf4-double" : "nf4";
}
