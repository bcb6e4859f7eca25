import { basename, resolve } from "node:path";
import { ModelWeights } from "#lib/checkpoint/model-weights";
import { checkTiedHead } from "#lib/checkpoint/tied-head";
import { isEmbeddingTable } from "#lib/checkpoint/weight-names";
import { weightsSha256 } from "#lib/checkpoint/weights-digest";
import {
  datasetName,
  defaultOf,
  type ResolvedConfig,
  resolveSteps,
  type SettledConfig,
  settleConfig,
} from "#lib/config/index";
import { hasBf16Products, processorKind, readProcessor } from "#lib/core/processor";
import type { FloatDtype } from "#lib/core/dtype";
import { LockstepError } from "#lib/core/errors/index";
import type { RunStarted } from "#lib/core/events";
import type { TokenBatch, WorkerJob } from "#lib/core/job";
import type { PreparationReport, Tokenizer, TrainingPlan } from "#lib/data/index";
import { isDerivedTensor } from "#lib/core/derived-tensors";
import { isTied } from "#lib/models/checkpoint-names";
import { learningRateAt, type ScheduleContext, type ScheduleName } from "#lib/optim/schedules";
import type { OptimizerSettings } from "#lib/optim/update-rule";
import { type ChosenParameters, parametersKindOf, type StartingModel } from "#lib/parameters/index";
import {
  bestMetric,
  type ClassifierModel,
  classifierModel,
  refuseClassifierOfTexts,
} from "./classifier.js";
import { openDataModel } from "./data-model.js";
import { findableName } from "./model-place.js";
import { type PreparedData, prepareData } from "./prepare-data.js";
import { type SampleRequest, sampleOf } from "./sample-request.js";
import { describeTemplateDate, withDateOf } from "./template-date.js";

/** Everything that a run needs before its first step, whoever runs it: a cluster or one process. */
export interface PreparedRun extends Pick<PreparedData, "dataDigests"> {
  readonly config: SettledConfig;
  readonly runName: string;
  readonly modelDirectory: string;
  readonly tokenizer: Tokenizer;
  readonly job: Omit<WorkerJob, "jobId">;
  readonly plan: TrainingPlan;
  readonly optimizer: OptimizerSettings;
  readonly numParameters: number;
  /** Without embedding tables: what transformers' estimate of operations counts. */
  readonly numComputedParameters: number;
  /** Type in which weights are saved. */
  readonly saveDtype: FloatDtype;
  /** Empty where nothing is kept for validation. */
  readonly validation: readonly TokenBatch[];
  /** Names of the classes, by number, where the model learns to classify. */
  readonly labels: readonly string[] | undefined;
  readonly trainReport: PreparationReport;
  readonly validationReport: PreparationReport | undefined;
  readonly sample: SampleRequest | undefined;
  readonly started: RunStarted;
  /** What is trained, and how it is saved. */
  readonly parameters: ChosenParameters;
  /** SHA-256 of the weights that the run starts from, or adds adapters to, by their content. */
  readonly baseDigest: () => Promise<string>;
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
  const kind = parametersKindOf(asked);
  if (kind.saves === "adapter" && resolve(asked.output_dir) === modelDirectory) {
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
            ...{ labels, padTokenId: paddingTokenId, seed: config.seed },
          });
    if (classifier !== undefined && config.sample_prompt !== null) {
      const reason = "a classifier continues no text";
      throw new LockstepError("E_CONFIG_CONFLICT", { keys: "sample_prompt and dataset", reason });
    }
    if (classifier === undefined && bestMetric(config) !== "loss") {
      throw new LockstepError("E_CONFIG_CONFLICT", {
        keys: "metric_for_best_model and dataset",
        reason: `${config.metric_for_best_model} is a classifier's, and the rows have no labels`,
      });
    }
    const model = startingModel(config, { modelDirectory, modelConfig, weights, classifier });
    const parameters = kind.choose(config, model, {
      wireDtype: config.wire_dtype,
      frozenDtype: config.bf16 ? "bfloat16" : "float32",
      seed: config.seed,
    });
    const { layout, frozen, adapterBase } = parameters;
    const sample = await sampleOf(config, tokenizer, {
      ...{ maxPositions, vocabSize, isChat: data.isChat },
    });
    const computed = [...layout.tensors, ...(frozen?.tensors ?? [])];
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
        modelConfig: { ...modelConfig, ...model.configChanges, ...parameters.modelChanges },
        layout,
        ...(frozen === undefined ? {} : { frozen }),
        parameters: parameters.job,
        precision: config.bf16 ? "bf16" : "fp32",
        ...(config.xla ? { xla: true } : {}),
        sequenceLength: plan.sequenceLength,
        ...(data.hasSegments ? { hasSegments: true } : {}),
        ...(data.hasTokenTypes ? { hasTokenTypes: true } : {}),
        ...(config.gradient_checkpointing === true ? { gradientCheckpointing: true } : {}),
        ...(config.global_batch_size / config.per_device_train_batch_size <= config.gradient_groups
          ? { accumulates: false }
          : {}),
        microBatchSize: config.per_device_train_batch_size,
        evalBatchSize: config.per_device_eval_batch_size,
        generationLength: sample === undefined ? 0 : sample.prompt.length + sample.maxNewTokens,
        threadsPerWorker: config.threads_per_worker,
      },
      ...data,
      optimizer: optimizerSettings(config, plan.totalSteps),
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
        ...(labels === undefined ? {} : { numClasses: labels.length }),
        ...(adapterBase === undefined ? {} : { adapterBase }),
        dataLines: [
          ...data.dataLines,
          ...describeTemplateDate(config, tokenizer),
          ...parameters.lines,
          ...(choice === undefined ? [] : [describeChoice(choice)]),
        ],
      },
      parameters,
      baseDigest: () => weightsSha256(weights, model.weights),
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

/** @throws E_CONFIG_INVALID for arguments that the schedule does not have */
function optimizerSettings(config: ResolvedConfig, totalSteps: number): OptimizerSettings {
  const schedule: ScheduleContext = {
    baseLearningRate: config.learning_rate,
    warmupSteps: resolveSteps(config.warmup_steps, totalSteps),
    totalSteps,
    ...(config.lr_scheduler_kwargs === null ? {} : { kwargs: config.lr_scheduler_kwargs }),
  };
  const rateAt = (completedUpdates: number): number =>
    learningRateAt(config.lr_scheduler_type as ScheduleName, schedule, completedUpdates);
  // Refuses unknown arguments of the schedule before anything is started.
  rateAt(0);
  return {
    learningRateAt: rateAt,
    beta1: config.adam_beta1,
    beta2: config.adam_beta2,
    epsilon: config.adam_epsilon,
    weightDecay: config.weight_decay,
    maxGradNorm: config.max_grad_norm,
  };
}

/** A checkpoint's weights and its configuration, and the head that it gets where it has none. */
function startingModel(
  config: ResolvedConfig,
  {
    modelDirectory,
    modelConfig,
    weights,
    classifier,
  }: {
    readonly modelDirectory: string;
    readonly modelConfig: Readonly<Record<string, unknown>>;
    readonly weights: ModelWeights;
    readonly classifier: ClassifierModel | undefined;
  },
): StartingModel {
  const { newWeights = new Map<string, Float32Array>() } = classifier ?? {};
  return {
    name: findableName(config.model_name_or_path, modelDirectory),
    revision: config.model_revision === defaultOf("model_revision") ? null : config.model_revision,
    directory: modelDirectory,
    modelType: String(modelConfig["model_type"]),
    weights: classifier?.weights ?? modelWeights(weights, modelConfig),
    newWeights: [...newWeights.keys()],
    isClassifier: classifier !== undefined,
    isTied: isTied(modelConfig),
    configChanges: classifier?.configChanges ?? {},
    read: async (name, into, span) => {
      const made = newWeights.get(name);
      if (made === undefined) return weights.readFloat32(name, into, span);
      const { start, count } = span ?? { start: 0, count: made.length };
      const part = made.subarray(start, start + count);
      into?.set(part);
      return into ?? part;
    },
  };
}

/**
 * The weights of a model by sorted name, so that their order depends on the model alone. A tied head and
 * stored rotary frequencies are derived from others.
 */
function modelWeights(
  weights: ModelWeights,
  modelConfig: Readonly<Record<string, unknown>>,
): StartingModel["weights"] {
  const tied = isTied(modelConfig);
  return weights
    .names()
    .filter((name) => !isDerivedTensor(name))
    .filter((name) => !(tied && name === "lm_head.weight"))
    .map((name) => ({ name, shape: weights.info(name).shape }));
}
