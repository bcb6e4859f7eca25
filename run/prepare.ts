import { basename, resolve } from "node:path";
import { ModelWeights } from "#lib/checkpoint/model-weights";
import type { LoraConfig } from "#lib/checkpoint/peft/index";
import { checkTiedHead } from "#lib/checkpoint/tied-head";
import { isEmbeddingTable } from "#lib/checkpoint/weight-names";
import { weightsSha256 } from "#lib/checkpoint/weights-digest";
import {
  datasetName,
  type ResolvedConfig,
  type SettledConfig,
  settleConfig,
} from "#lib/config/index";
import { hasBf16Products, processorKind, readProcessor } from "#lib/core/processor";
import type { Batch } from "#lib/core/batch";
import type { FloatDtype } from "#lib/core/dtype";
import { LockstepError } from "#lib/core/errors/index";
import type { RunStarted } from "#lib/core/events";
import type { WorkerJob } from "#lib/core/job";
import {
  buildParameterLayout,
  type ElementRange,
  type ParameterLayout,
} from "#lib/core/parameter-layout";
import type { PreparationReport, Tokenizer, TrainingPlan } from "#lib/data/index";
import { isDerivedTensor } from "#lib/core/derived-tensors";
import { isTied } from "#lib/models/checkpoint-names";
import { objectiveOf } from "#lib/objectives/index";
import { describedObjective } from "#lib/objectives/metrics";
import type { UpdateSettings } from "#lib/optim/index";
import { classifierModel, refuseClassifierOfTexts } from "./classifier.js";
import { loraRun } from "./lora.js";
import { openDataModel } from "./data-model.js";
import { findableName } from "./model-place.js";
import { bestMetric } from "./objective.js";
import { type PreparedData, prepareData } from "./prepare-data.js";
import { type SampleRequest, sampleOf } from "./sample-request.js";
import { describeTemplateDate, withDateOf } from "./template-date.js";
import { updateSettings } from "./update-settings.js";

/** Everything that a run needs before its first step, whoever runs it: a cluster or one process. */
export interface PreparedRun extends Pick<PreparedData, "dataDigests"> {
  readonly config: SettledConfig;
  readonly runName: string;
  readonly modelDirectory: string;
  readonly tokenizer: Tokenizer;
  readonly job: Omit<WorkerJob, "jobId">;
  readonly plan: TrainingPlan;
  readonly updates: UpdateSettings;
  readonly numParameters: number;
  /** Without embedding tables: what transformers' estimate of operations counts. */
  readonly numComputedParameters: number;
  /** Type in which weights are saved. */
  readonly saveDtype: FloatDtype;
  /** Empty where nothing is kept for validation. */
  readonly validation: readonly Batch[];
  /** Names of the classes, by number, where the model learns to classify. */
  readonly labels: readonly string[] | undefined;
  /** Fields of config.json that the saved model has beside or instead of the opened one's. */
  readonly configChanges: Readonly<Record<string, unknown>>;
  readonly trainReport: PreparationReport;
  readonly validationReport: PreparationReport | undefined;
  readonly sample: SampleRequest | undefined;
  readonly started: RunStarted;
  /** The adapter's configuration as it is saved, where adapters are trained and not the weights. */
  readonly adapter: LoraConfig | undefined;
  /** SHA-256 of the weights that the run starts from, or adds adapters to, by their content. */
  readonly baseDigest: () => Promise<string>;
  /** Fills `into` with the first values of a range of the flat space, float32; padding is 0. */
  readonly loadMasters: (range: ElementRange, into: Float32Array) => Promise<void>;
  /** The same for the weights that adapters leave as they are. */
  readonly loadFrozen: ((range: ElementRange, into: Float32Array) => Promise<void>) | undefined;
  readonly close: () => Promise<void>;
}

/** What `bf16: auto` is in a run. */
export interface PrecisionChoice {
  readonly bf16: boolean;
  /** The device, or the checkpoint, that decided. */
  readonly reason: string;
}

export interface PreparationHooks {
  /** Asked where the configuration leaves it open, when the data is ready. @default this processor */
  readonly choosePrecision?: () => Promise<PrecisionChoice>;
  /** What is being done, for a display. */
  readonly onDetail?: (detail: string) => void;
}

/** Opens the model, tokenises and packs the data set, and plans every step. Loads no TensorFlow. */
export async function prepareRun(
  asked: ResolvedConfig,
  { onDetail = () => {}, choosePrecision }: PreparationHooks = {},
): Promise<PreparedRun> {
  const opened = await openDataModel(asked, { onDetail });
  const { modelDirectory, modelConfig, tokenizer } = opened;
  if (asked.use_peft && resolve(asked.output_dir) === modelDirectory) {
    throw new LockstepError("E_CONFIG_CONFLICT", {
      keys: "output_dir and model_name_or_path",
      reason: "an adapter in the directory of its base model would replace that model's files",
    });
  }
  const weights = await ModelWeights.open(modelDirectory);
  try {
    if (isTied(modelConfig)) await checkTiedHead(weights);
    const { maxPositions, paddingTokenId, vocabSize } = opened.context;
    const data = await prepareData(asked, { ...opened.context, onDetail });
    const choice =
      asked.bf16 === "auto" ? ((await choosePrecision?.()) ?? processorChoice()) : undefined;
    const dated = withDateOf(tokenizer, asked, opened.date);
    const config = settleConfig(dated, choice?.bf16 ?? asked.bf16 === true);
    const { labels } = data;
    if (labels === undefined) refuseClassifierOfTexts(modelConfig);
    const classifier =
      labels === undefined
        ? undefined
        : classifierModel(modelConfig, weights, {
            ...{ labels, problemType: data.objective.kind },
            ...{ padTokenId: paddingTokenId, seed: config.seed },
          });
    if (classifier !== undefined && config.sample_prompt !== null) {
      const reason = "a classifier continues no text";
      throw new LockstepError("E_CONFIG_CONFLICT", { keys: "sample_prompt and dataset", reason });
    }
    // Refuses a metric that the objective does not have.
    bestMetric(config, objectiveOf(data.objective.kind));
    const wholeLayout =
      classifier === undefined
        ? layoutOf(weights, modelConfig, config.wire_dtype)
        : buildParameterLayout(classifier.weights, config.wire_dtype);
    const { newWeights = new Map<string, Float32Array>() } = classifier ?? {};
    const lora = loraRun(config, {
      modelType: String(modelConfig["model_type"]),
      weights: [...wholeLayout.tensors].sort((a, b) => (a.name < b.name ? -1 : 1)),
      name: findableName(config.model_name_or_path, modelDirectory),
      isClassifier: classifier !== undefined,
      isTied: isTied(modelConfig),
      newModules: [...newWeights.keys()].map(moduleOf),
      read: async ({ name }) => newWeights.get(name) ?? weights.readFloat32(name),
    });
    const layout = lora?.layout ?? wholeLayout;
    const sourceOf = lora?.sourceOf ?? ((name: string) => name);
    const loaderOf =
      (space: ParameterLayout): PreparedRun["loadMasters"] =>
      (range, into) =>
        loadRange(weights, space, range, into, { newWeights, sourceOf });
    const sample = await sampleOf(config, tokenizer, {
      ...{ maxPositions, vocabSize, isChat: data.isChat },
    });
    const computed = [...layout.tensors, ...(lora?.frozen.tensors ?? [])];
    const numParameters = computed.reduce((sum, { size }) => sum + size, 0);
    const runName =
      config.run_name ??
      `${basename(config.model_name_or_path)} on ${config.dataset.map((each) => basename(datasetName(each))).join(", ")}`;
    const { plan } = data;
    return {
      config,
      runName,
      modelDirectory,
      tokenizer,
      job: {
        modelConfig: { ...modelConfig, ...classifier?.configChanges, ...lora?.modelChanges },
        layout,
        precision: config.bf16 ? "bf16" : "fp32",
        ...(config.xla ? { xla: true } : {}),
        sequenceLength: plan.sequenceLength,
        objective: data.objective,
        batchFields: data.batchFields,
        ...(config.gradient_checkpointing === true ? { gradientCheckpointing: true } : {}),
        ...(config.global_batch_size / config.per_device_train_batch_size <= config.gradient_groups
          ? { accumulates: false }
          : {}),
        microBatchSize: config.per_device_train_batch_size,
        evalBatchSize: config.per_device_eval_batch_size,
        generationLength: sample === undefined ? 0 : sample.prompt.length + sample.maxNewTokens,
        threadsPerWorker: config.threads_per_worker,
        ...(lora === undefined ? {} : { frozen: lora.frozen, lora: lora.job }),
      },
      ...data,
      configChanges: classifier?.configChanges ?? {},
      updates: updateSettings(config, plan.totalSteps),
      numParameters,
      numComputedParameters: computed.reduce(
        (sum, { name, size }) => (isEmbeddingTable(name) ? sum : sum + size),
        0,
      ),
      saveDtype: config.save_dtype === "auto" ? weights.dtype() : config.save_dtype,
      sample,
      started: {
        type: "run.started",
        runName,
        totalSteps: plan.totalSteps,
        globalBatchSize: config.global_batch_size,
        sequenceLength: plan.sequenceLength,
        gradientGroups: config.gradient_groups,
        plannedWorkers: config.workers,
        numParameters,
        numTrainRows: plan.numRows,
        numTrainTokens: data.trainReport.rowTokens,
        numValidationRows: data.validationReport?.numRows ?? 0,
        objective: describedObjective(data.objective),
        ...(labels === undefined ? {} : { numClasses: labels.length }),
        ...(lora === undefined ? {} : { adapterBase: lora.baseName }),
        dataLines: [
          ...data.dataLines,
          ...describeTemplateDate(config, tokenizer),
          ...(lora?.lines ?? []),
          ...(choice === undefined ? [] : [describeChoice(choice)]),
        ],
      },
      adapter: lora?.config,
      baseDigest: () => weightsSha256(weights, wholeLayout.tensors),
      loadMasters: lora?.loadMasters ?? loaderOf(layout),
      loadFrozen: lora && loaderOf(lora.frozen),
      close: async () => {
        data.closeData();
        await weights.close();
      },
    };
  } catch (error) {
    await weights.close();
    throw error;
  }
}

function processorChoice(): PrecisionChoice {
  const processor = readProcessor();
  return { bf16: hasBf16Products(processor), reason: processorKind(processor) };
}

const describeChoice = ({ bf16, reason }: PrecisionChoice): string =>
  `precision: ${bf16 ? "bfloat16 products" : "float32"} (bf16: auto; ${reason})`;

/**
 * The flat space of a full fine-tune: the checkpoint's weights by sorted name, so that it depends on
 * the model alone. A tied head and stored rotary frequencies are derived, not trained.
 */
export function layoutOf(
  weights: ModelWeights,
  modelConfig: Readonly<Record<string, unknown>>,
  wireDtype: "bfloat16" | "float32",
): ParameterLayout {
  const tied = isTied(modelConfig);
  const trainable = weights
    .names()
    .filter((name) => !isDerivedTensor(name))
    .filter((name) => !(tied && name === "lm_head.weight"));
  return buildParameterLayout(
    trainable.map((name) => ({ name, shape: weights.info(name).shape })),
    wireDtype,
  );
}

/** The module of a weight or bias. */
const moduleOf = (name: string): string => name.replace(/\.(weight|bias)$/, "");

async function loadRange(
  weights: ModelWeights,
  layout: ParameterLayout,
  range: ElementRange,
  into: Float32Array,
  {
    newWeights,
    sourceOf,
  }: {
    readonly newWeights: ReadonlyMap<string, Float32Array>;
    readonly sourceOf: (name: string) => string;
  },
): Promise<void> {
  for (const { name, offset, size } of layout.tensors) {
    const start = Math.max(range.start, offset);
    const end = Math.min(range.end, offset + size);
    if (start >= end) continue;
    const made = newWeights.get(name);
    if (made !== undefined) {
      into.set(made.subarray(start - offset, end - offset), start - range.start);
      continue;
    }
    await weights.readFloat32(
      sourceOf(name),
      into.subarray(start - range.start, end - range.start),
      {
        start: start - offset,
        count: end - start,
      },
    );
  }
}
