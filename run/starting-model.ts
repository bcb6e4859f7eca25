import type { ModelWeights } from "#lib/checkpoint/model-weights";
import type { AdapterDirectory } from "#lib/checkpoint/peft/index";
import { weightsSha256 } from "#lib/checkpoint/weights-digest";
import { defaultOf, type SettledConfig } from "#lib/config/index";
import { isDerivedTensor } from "#lib/core/derived-tensors";
import { LockstepError } from "#lib/core/errors/index";
import { adapterFacts, isEncoder, isTied, tiedEmbeddingName } from "#lib/models/facts";
import { objectiveOf } from "#lib/objectives/index";
import type { StartingModel } from "#lib/parameters/index";
import { classifierModel, refuseClassifierOfTexts } from "./classifier.js";
import type { DataModel } from "./data-model.js";
import { findableName } from "./model-place.js";
import type { PreparedData } from "./prepare-data.js";
import type { TaskHead } from "./task-heads.js";

/**
 * A checkpoint's weights and its configuration, with a head over the labels of the data where they have some.
 *
 * @throws E_MODEL_UNSUPPORTED, E_CONFIG_CONFLICT where the model and the data do not go together
 */
export function startingModel(
  config: SettledConfig,
  { modelDirectory, modelConfig, tokenizer, context }: DataModel,
  weights: ModelWeights,
  {
    labels,
    objective,
    heads,
    adapter,
  }: Pick<PreparedData, "labels" | "objective"> & {
    readonly heads: readonly TaskHead[];
    readonly adapter: AdapterDirectory | undefined;
  },
): StartingModel {
  checkLabels(config, modelConfig, labels);
  const { head } = objectiveOf(objective.kind);
  if (head !== undefined && isEncoder(modelConfig)) {
    throw new LockstepError("E_CONFIG_CONFLICT", {
      keys: "model_name_or_path and objective",
      reason: `${objective.kind} scores answers behind their prompts, which a decoder reads, and ${String(modelConfig["model_type"])} is an encoder`,
    });
  }
  const classifier =
    labels === undefined
      ? undefined
      : classifierModel(modelConfig, weights, {
          ...{ labels, problemType: head?.problemType ?? objective.kind },
          ...{ padTokenId: context.paddingTokenId, seed: config.seed },
        });
  const newWeights = new Map([
    ...(classifier?.newWeights ?? []),
    ...heads.flatMap((head) => [...head.newWeights]),
  ]);
  const copies = new Map(heads.flatMap((head) => [...head.copies]));
  const tensors = [
    ...(classifier?.weights ?? modelWeights(weights, modelConfig)),
    ...heads.flatMap((head) => head.weights),
  ].sort((a, b) => (a.name < b.name ? -1 : 1));
  let digest: Promise<string> | undefined;
  return {
    name: findableName(config.model_name_or_path, modelDirectory),
    revision: config.model_revision === defaultOf("model_revision") ? null : config.model_revision,
    directory: modelDirectory,
    facts: adapterFacts(modelConfig),
    ...(adapter === undefined ? {} : { adapter }),
    weights: tensors,
    newWeights: [...newWeights.keys()],
    isClassifier: classifier !== undefined,
    ...(heads.length === 0 ? {} : { taskModels: heads }),
    tiedEmbedding: isTied(modelConfig) ? tiedEmbeddingName(weights.names()) : undefined,
    configChanges: classifier?.configChanges ?? {},
    encode: (text) => tokenizer.encode(text, { addSpecialTokens: true }),
    digest: () => {
      digest ??= weightsSha256(weights, tensors);
      return digest;
    },
    storedAs: (name) =>
      newWeights.has(name) ? undefined : weights.storedAs(copies.get(name) ?? name),
    read: async (name, into, span) => {
      const made = newWeights.get(name);
      if (made === undefined) return weights.readFloat32(copies.get(name) ?? name, into, span);
      const { start, count } = span ?? { start: 0, count: made.length };
      const part = made.subarray(start, start + count);
      into?.set(part);
      return into ?? part;
    },
  };
}

/** @throws E_CONFIG_CONFLICT for keys that labelled rows, or rows without labels, cannot follow */
function checkLabels(
  config: SettledConfig,
  modelConfig: DataModel["modelConfig"],
  labels: readonly string[] | undefined,
): void {
  if (labels === undefined) refuseClassifierOfTexts(modelConfig);
  if (labels === undefined || config.sample_prompt === null) return;
  throw new LockstepError("E_CONFIG_CONFLICT", {
    keys: "sample_prompt and dataset",
    reason: "a classifier continues no text",
  });
}

/**
 * The weights of a model by sorted name, so that their order depends on the model alone. A tied head and
 * stored rotary frequencies are derived from others.
 */
export function modelWeights(
  weights: ModelWeights,
  modelConfig: DataModel["modelConfig"],
): StartingModel["weights"] {
  const tied = isTied(modelConfig);
  return weights
    .names()
    .filter((name) => !isDerivedTensor(name))
    .filter((name) => !(tied && name === "lm_head.weight"))
    .map((name) => ({ name, shape: weights.info(name).shape }));
}
