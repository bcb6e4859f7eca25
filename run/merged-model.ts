import { refuseUnmergeable } from "#lib/checkpoint/adapter-kind";
import { checkBaseDigest } from "#lib/checkpoint/base-digest";
import { checkTiedHead, type ModelTensor, type ModelWeights } from "#lib/checkpoint/index";
import { weightsSha256 } from "#lib/checkpoint/weights-digest";
import {
  AdapterDirectory,
  type AdapterFacts,
  classifierHeads,
  classifierConfigFileName,
  completeLoraConfig,
  headTieOf,
  mergedTensors,
  type MergeOptions,
  tiedHeadPath,
} from "#lib/checkpoint/peft/index";
import type { FloatDtype } from "#lib/core/dtype";
import { LockstepError } from "#lib/core/errors/index";
import type { ParametersJob } from "#lib/core/job";
import {
  type ClassifierCheckpoint,
  classifierCheckpoint,
  knownLabels,
} from "#lib/models/classifier-checkpoint";
import { adapterFacts, isTied, tiedEmbeddingName } from "#lib/models/facts";
import { layOutAdapter } from "#lib/parameters/lora-layout";
import { readClassifierConfig } from "./classifier-config.js";
import { readModelConfig } from "./model-directory.js";
import type { ModelPlace } from "./model-place.js";
import { openModelWeights } from "./model-weights.js";
import { modelWeights } from "./starting-model.js";

type Json = Readonly<Record<string, unknown>>;

/** A base model with its adapter beside it. */
export interface UnmergedModel {
  /** What an engine has to know of the adapter. */
  readonly job: ParametersJob;
  /** Tensors of the adapter that are no weights of the model. */
  readonly added: readonly { readonly name: string; readonly shape: readonly number[] }[];
  /** A weight of the model before the adapter is added, or one of `added`, float32. */
  readonly read: (name: string) => Promise<Float32Array>;
}

/** A base model with its adapter in it, weight by weight as they are read: no copy lies anywhere. */
interface MergedModel {
  /** config.json of the whole. */
  readonly config: Json;
  /** What it has beside or instead of the base's. */
  readonly configChanges: Json;
  readonly tensors: readonly ModelTensor[];
  /** Type in which the base is stored. */
  readonly dtype: FloatDtype;
  readonly numModules: number;
  /** The base with the adapter beside it, as it was trained. */
  readonly unmerged: UnmergedModel;
  /** About keys of adapter_config.json that nobody knows. */
  readonly warnings: readonly string[];
  readonly close: () => Promise<void>;
}

/**
 * @param quantisation see MergeOptions
 * @throws E_ADAPTER_TENSOR, E_ADAPTER_BASE for an adapter of another model, and what opening either throws
 */
export async function openMergedModel(
  place: ModelPlace,
  quantisation?: MergeOptions["quantisation"],
): Promise<MergedModel> {
  const { modelDirectory, directory } = place;
  await refuseUnmergeable(directory);
  const baseConfig = await readModelConfig(modelDirectory);
  const adapter = await AdapterDirectory.open(directory);
  const opened: { close: () => Promise<void> }[] = [adapter];
  const close = async (): Promise<void> => {
    for (const each of opened) await each.close();
  };
  try {
    const weights = await openModelWeights(modelDirectory);
    opened.push(weights);
    const head = isClassifierAdapter(adapter)
      ? await classifierOf(baseConfig, weights, adapter)
      : undefined;
    const facts = adapterFacts(baseConfig);
    const untied =
      head === undefined && isTied(baseConfig)
        ? await untiedHead(facts, weights, adapter)
        : undefined;
    await checkBaseDigest(adapter, place.adapter?.base ?? modelDirectory, () =>
      baseDigest(weights, baseConfig, head),
    );
    const { configChanges = untied?.configChanges ?? {} } = head ?? {};
    const tensors = mergedTensors(weights, adapter, {
      ...{ facts, quantisation },
      ...untied?.merging,
      ...(head === undefined ? {} : { newWeights: head.head, isOfModel: head.isOfModel }),
    });
    return {
      config: { ...baseConfig, ...configChanges },
      configChanges,
      tensors,
      dtype: weights.dtype(),
      numModules: adapter.modules.length,
      unmerged: unmergedModel(adapter, { facts, weights: tensors }),
      warnings: adapter.warnings,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** SHA-256 of a base model's weights as a run takes it that trains an adapter of it. @param head of a classifier */
export const baseDigest = (
  weights: ModelWeights,
  baseConfig: Json,
  head: { readonly isOfModel: (name: string) => boolean } | undefined,
): Promise<string> =>
  weightsSha256(
    weights,
    head === undefined
      ? modelWeights(weights, baseConfig)
      : weights.names().flatMap((name) => (head.isOfModel(name) ? { name } : [])),
  );

function unmergedModel(
  adapter: AdapterDirectory,
  model: { readonly facts: AdapterFacts; readonly weights: ReturnType<typeof mergedTensors> },
): UnmergedModel {
  const { trained, job } = layOutAdapter(completeLoraConfig(adapter.config, model), model, {
    wireDtype: "float32",
    frozenDtype: "float32",
  });
  const ofModel = new Map(model.weights.map((tensor) => [tensor.name, tensor]));
  return {
    job,
    added: trained.tensors.filter(({ name }) => !ofModel.has(name)),
    read: (name) => ofModel.get(name)?.readUnmerged() ?? adapter.readSaved(name),
  };
}

/** peft's own word for it, or else what is saved whole. */
function isClassifierAdapter({ config, savedWeights }: AdapterDirectory): boolean {
  if (config.task_type !== null) return config.task_type === "SEQ_CLS";
  return savedWeights.some((name) => classifierHeads.includes(name.split(".", 1)[0] ?? ""));
}

/**
 * What becomes of a head that the base ties to its embedding table, where the adapter holds one of them. As
 * in peft they are two weights then, unless `ensure_weight_tying` keeps them one.
 *
 * @throws E_ADAPTER_TENSOR where what is to be one weight has two values
 */
async function untiedHead(
  facts: AdapterFacts,
  base: ModelWeights,
  adapter: AdapterDirectory,
): Promise<
  | { readonly configChanges: Json; readonly merging: Pick<MergeOptions, "newWeights" | "copies"> }
  | undefined
> {
  const embedding = tiedEmbeddingName(base.names());
  await checkTiedHead(base, embedding);
  if (embedding === undefined) return undefined;
  const weights = base.names().map((name) => ({ name, shape: base.info(name).shape }));
  const path = embedding.replace(/\.weight$/, "");
  const tie = headTieOf(adapter.config, { facts, weights }, path);
  const name = `${tiedHeadPath}.weight`;
  const newWeights = [{ name, shape: base.info(embedding).shape }];
  if (tie === "untied") {
    const copies = new Map([[name, embedding]]);
    return { configChanges: { tie_word_embeddings: false }, merging: { newWeights, copies } };
  }
  if (tie === "untouched" || !adapter.savedWeights.includes(name)) return undefined;
  const [head, table] = [await adapter.readSaved(name), await adapter.readSaved(embedding)];
  if (head.length !== table.length || !head.every((value, i) => Object.is(value, table[i]))) {
    const problem = `has other values than ${embedding}, and ensure_weight_tying says that they are one weight`;
    throw new LockstepError("E_ADAPTER_TENSOR", {
      directory: adapter.directory,
      tensor: name,
      problem,
    });
  }
  return { configChanges: {}, merging: { newWeights } };
}

/**
 * The classifier that an adapter makes of its base: the names of the classes are those saved beside it,
 * else the base's own, else transformers' LABEL_0, LABEL_1 ... for as many as the head has rows.
 */
export async function classifierOf(
  baseConfig: Json,
  weights: ModelWeights,
  adapter: Pick<AdapterDirectory, "directory" | "savedWeights" | "savedInfo">,
): Promise<ClassifierCheckpoint & { readonly isOfModel: (name: string) => boolean }> {
  const saved = await readClassifierConfig(adapter.directory);
  const padTokenId = saved?.["pad_token_id"];
  const describe = (labels: readonly string[]): ClassifierCheckpoint => {
    const found = classifierCheckpoint(baseConfig, {
      labels,
      padTokenId: typeof padTokenId === "number" ? padTokenId : null,
    });
    if (found !== undefined) return found;
    const what = `A classifier of model_type ${JSON.stringify(baseConfig["model_type"])}`;
    throw new LockstepError("E_MODEL_UNSUPPORTED", { what });
  };
  const { outputWeight } = describe([]);
  const numLabels = adapter.savedWeights.includes(outputWeight)
    ? adapter.savedInfo(outputWeight).shape[0]
    : weights.has(outputWeight)
      ? weights.info(outputWeight).shape[0]
      : undefined;
  if (numLabels === undefined) {
    const problem = "is neither in the adapter nor in the base model, and a classifier needs it";
    throw new LockstepError("E_ADAPTER_TENSOR", {
      directory: adapter.directory,
      tensor: outputWeight,
      problem,
    });
  }
  const names = saved === undefined ? [] : knownLabels(saved);
  if (saved !== undefined && names.length !== numLabels) {
    const problem = `has ${numLabels} rows, and ${classifierConfigFileName} beside it names ${names.length} classes`;
    throw new LockstepError("E_ADAPTER_TENSOR", {
      directory: adapter.directory,
      tensor: outputWeight,
      problem,
    });
  }
  const ofBase = knownLabels(baseConfig);
  const labels = [names, ofBase].find((list) => list.length === numLabels);
  const head = describe(labels ?? Array.from({ length: numLabels }, (_, i) => `LABEL_${i}`));
  // Where nobody wrote it down, the labels or the base decide, as in transformers.
  const problemType = saved === undefined ? baseConfig["problem_type"] : saved["problem_type"];
  const configChanges =
    problemType === undefined
      ? head.configChanges
      : { ...head.configChanges, problem_type: problemType };
  const isOfHead = new Set(head.head.map(({ name }) => name));
  return {
    ...head,
    configChanges,
    isOfModel: (name) => head.isOfBase(name) || isOfHead.has(name),
  };
}
