import { defaultOf, isConfigKey, placeOf, type ResolvedConfig } from "#lib/config/index";
import type { Batch, BatchField } from "#lib/core/batch";
import { minSequenceLength } from "#lib/data/sequence-length";
import { LockstepError } from "#lib/core/errors/index";
import type { ObjectiveJob } from "#lib/core/job";
import type { Classes } from "#lib/core/labels";
import {
  createTrainingPlan,
  type DataObserver,
  type DataSource,
  evaluationBatches,
  findSources,
  type PreparationReport,
  type PreparedDataset,
  prepareDataset,
  rowsSha256,
  type Tokenizer,
  type TrainingPlan,
} from "#lib/data/index";
import { type Objective, objectiveOf } from "#lib/objectives/index";
import { parametersKindOf } from "#lib/parameters/index";
import { checkChatFormat } from "./chat-format.js";
import {
  changedClasses,
  changedProblem,
  checkObjectiveKeys,
  labelledObjective,
  textObjective,
} from "./objective.js";
import { counted, withCommas } from "#lib/core/format";

/** Progress is told after so much more text. */
const charactersPerDetail = 16 * 2 ** 20;

export interface PreparedData {
  readonly plan: TrainingPlan;
  readonly dataset: PreparedDataset;
  /** Empty where nothing is kept for validation. */
  readonly validation: readonly Batch[];
  /** What is learnt of the rows. */
  readonly objective: ObjectiveJob;
  readonly batchFields: readonly BatchField[];
  /** Whether most examples are conversations, which the chat template renders. */
  readonly isChat: boolean;
  /** Names of the classes, by number, where rows are labelled. */
  readonly labels: readonly string[] | undefined;
  readonly trainReport: PreparationReport;
  readonly validationReport: PreparationReport | undefined;
  /** What there is to learn on both sides, and what was cut: lines for a person. */
  readonly layoutLines: readonly string[];
  /** The same, and the rows that were left out. */
  readonly dataLines: readonly string[];
  /** SHA-256 of the rows of each side, by their content; validation is null where nothing is kept for it. */
  readonly dataDigests: () => Promise<{
    readonly training: string;
    readonly validation: string | null;
  }>;
  /** After it the plan gives no more batches. */
  readonly closeData: () => void;
}

export interface DataContext {
  readonly tokenizer: Tokenizer;
  readonly vocabSize: number;
  readonly maxPositions: number;
  /** What stands behind the tokens of labelled rows. */
  readonly paddingTokenId: number;
  /** Whether the model tells the texts of a pair apart by token types. */
  readonly usesTokenTypes: boolean;
  /** `problem_type` of a model that is a classifier already. */
  readonly problemType: string | undefined;
  /** Names of the classes that the model has. */
  readonly knownLabels: readonly string[];
  /** Whether the model is an encoder or a classifier already, which continues no text. */
  readonly learnsLabels: boolean;
  readonly onDetail: (detail: string) => void;
  readonly observer?: DataObserver;
}

/** Reads, tokenises and lays out the data set of a configuration, and plans every step. */
export async function prepareData(
  config: ResolvedConfig,
  { maxPositions: modelPositions, onDetail, learnsLabels, ...context }: DataContext,
): Promise<PreparedData> {
  onDetail("reading the data set");
  const numAdded = addedTokensOf(config);
  const maxPositions = modelPositions - numAdded;
  // The default is for models of today; an older one with fewer positions takes rows of its own length.
  const isShorter =
    config.max_length === defaultOf("max_length") && maxPositions < config.max_length;
  const sequenceLength = isShorter ? maxPositions : config.max_length;
  if (numAdded > 0 && (sequenceLength > maxPositions || maxPositions < minSequenceLength)) {
    throw new LockstepError("E_CONFIG_CONFLICT", {
      keys: "max_length and finetuning_type",
      reason: `${parametersKindOf(config).title} puts ${withCommas(numAdded)} tokens before each row, and the model has ${withCommas(modelPositions)} positions in all`,
    });
  }
  let nextDetail = charactersPerDetail;
  let labelled: Objective | undefined;
  const dataset = await prepareDataset(
    {
      train: await sourcesOf(config, config.dataset, learnsLabels),
      ...(config.eval_dataset === null
        ? {}
        : { validation: await sourcesOf(config, config.eval_dataset, learnsLabels) }),
      validationFraction: config.validation_split,
      onBadExample: config.on_bad_row,
    },
    {
      ...context,
      labelReaderOf: (first) => {
        const objective = labelledObjective(config, context.problemType, first);
        labelled = objective;
        return objective.labels;
      },
      sequenceLength,
      maxSequenceLength: maxPositions,
      seed: config.data_seed,
      packing: numAdded === 0 ? config.packing : false,
      maxTrainRows: config.max_train_samples,
      maxValidationRows: config.max_eval_samples,
      // The file has no name once it is open, so nothing of it is left.
      spillDirectory: config.output_dir,
      onProgress: (numCharacters) => {
        if (numCharacters < nextDetail) return;
        nextDetail = numCharacters + charactersPerDetail;
        onDetail(`tokenising, ${Math.floor(numCharacters / 1e6)} million characters`);
      },
    },
  );
  try {
    if (dataset.isChat) checkChatFormat(config.chat_template, context.tokenizer);
    const { train, validation } = dataset;
    const labels = dataset.classes?.names;
    const { kind } = (labels === undefined ? undefined : labelled) ?? textObjective(config);
    const learnt = objectiveOf(kind);
    checkObjectiveKeys(config, learnt);
    const settings = learnt.settings?.(config, {
      names: labels ?? [],
      numRows: train.rows.numRows,
      targetsOf: (row) => train.rows.targetsOf?.(row) ?? {},
      placeOf: (key) => (isConfigKey(key) ? placeOf(config, key) : ""),
    });
    const objective: ObjectiveJob = {
      kind,
      ...(labels === undefined ? {} : { numLabels: labels.length }),
      ...(settings === undefined || Object.keys(settings).length === 0 ? {} : { settings }),
    };
    if (validation === undefined && (config.eval_strategy !== "no" || config.eval_on_start)) {
      throw new LockstepError("E_CONFIG_CONFLICT", {
        keys: "eval_strategy, eval_on_start and validation_split",
        reason: ["an evaluation is asked for, and no row is there for it", ...dataset.notes].join(
          "; ",
        ),
      });
    }
    const classifierNotes =
      labels !== undefined && !learnsLabels
        ? [
            `a model of texts becomes ${dataset.classes?.areNumbers === true ? "a regression" : "a classifier"}, since rows have a label; dataset_format: text trains on their texts instead`,
          ]
        : [
            ...changedProblem(context.problemType, kind),
            ...changedClasses(context.knownLabels, labels ?? []),
          ];
    const limit = isShorter ? [`max_length is ${maxPositions} here, the model's own limit`] : [];
    const lossNotes = learnt.notes?.(objective, labels ?? []) ?? [];
    const notes = [...classifierNotes, ...lossNotes, ...limit];
    onDetail("planning the steps");
    const plan = createTrainingPlan({
      rows: weighedRows(train.rows, learnt, objective),
      seed: config.data_seed,
      rowsPerStep: config.global_batch_size,
      microBatchSize: config.per_device_train_batch_size,
      gradientGroups: config.gradient_groups,
      numEpochs: config.num_train_epochs,
      maxSteps: config.max_steps,
      sampling: config.train_sampling_strategy,
    });
    return {
      plan,
      dataset,
      validation:
        validation === undefined
          ? []
          : evaluationBatches(validation.rows, config.per_device_eval_batch_size),
      objective,
      batchFields: [...train.rows.inputs, ...learnt.targets(objective)],
      isChat: dataset.isChat,
      labels,
      trainReport: train.report,
      validationReport: validation?.report,
      layoutLines: [...describeSides(dataset), ...notes],
      dataLines: [...describeData(dataset), ...notes],
      dataDigests: async () => ({
        training: await rowsSha256(train.rows),
        validation: validation === undefined ? null : await rowsSha256(validation.rows),
      }),
      closeData: dataset.close,
    };
  } catch (error) {
    dataset.close();
    throw error;
  }
}

type Rows = PreparedDataset["train"]["rows"];

/** The rows with what each counts in the loss of their objective. */
function weighedRows(rows: Rows, learnt: Objective, job: ObjectiveJob): Rows {
  const { targetsOf } = rows;
  if (targetsOf === undefined) return rows;
  return { ...rows, lossWeight: (row) => learnt.weightOf(targetsOf(row), job) };
}

async function sourcesOf(
  config: ResolvedConfig,
  names: ResolvedConfig["dataset"],
  learnsLabels: boolean,
): Promise<DataSource[]> {
  const sources = await findSources(names, {
    datasetDir: config.dataset_dir,
    textField: config.dataset_text_field,
    columns: config.columns,
    isTextModel: !learnsLabels,
    maxExamples: config.max_samples,
  });
  const { dataset_format: format } = config;
  return format === "auto" ? sources : sources.map((source) => ({ format, ...source }));
}

const maxListedClasses = 10;

function describeClasses({ names, areNumbers = false }: Classes): string {
  if (areNumbers) return `with ${counted(names.length, "number")} each`;
  const listed = names.slice(0, maxListedClasses).join(", ");
  return `in ${names.length} classes (${listed}${names.length > maxListedClasses ? ", ..." : ""})`;
}

/** The figures of one run's data, before it trains. */
export function describeData(dataset: PreparedDataset): string[] {
  return [
    ...describeSides(dataset),
    ...(dataset.rejectedExamples === 0
      ? []
      : [
          `${counted(dataset.rejectedExamples, "bad row")} left out:`,
          ...dataset.listedRejections.map((message) => `  ${message}`),
        ]),
  ];
}

function describeSides(dataset: PreparedDataset): string[] {
  const rowKinds = {
    wrapped: "laid end to end",
    padded: "a row each",
    packed: "packed into rows that they share",
    labelled: `${dataset.classes === undefined ? "" : describeClasses(dataset.classes)}, ${counted(dataset.train.rows.sequenceLength, "token")} at most`,
  };
  const side = (name: string, report: PreparationReport): string => {
    const { numExamples, numRows, rowTokens, supervisedTokens, droppedTokens } = report;
    const cut =
      report.truncatedExamples === 0
        ? ""
        : `; ${withCommas(report.truncatedExamples)} too long, ${counted(report.truncatedTokens, "token")} cut off`;
    const dropped = droppedTokens - report.truncatedTokens;
    return (
      `${name}: ${counted(numExamples, "example")} ${rowKinds[dataset.layout]}, ` +
      `${counted(numRows, "row")}, ${counted(rowTokens, "token")}` +
      `${dataset.layout === "labelled" ? "" : `, ${withCommas(supervisedTokens)} supervised`}` +
      `${cut}${dropped > 0 ? `; ${counted(dropped, "token")} left over` : ""}`
    );
  };
  return [
    ...dataset.notes,
    side("training", dataset.train.report),
    ...(dataset.validation === undefined ? [] : [side("validation", dataset.validation.report)]),
    ...(dataset.blankTexts.count === 0
      ? []
      : [
          `${counted(dataset.blankTexts.count, "blank text")} left out, the first at ${dataset.blankTexts.first}`,
        ]),
  ];
}

/**
 * Tokens that what is trained puts before each row; rows are not packed then.
 *
 * @throws E_CONFIG_CONFLICT where they are asked to be
 */
function addedTokensOf(config: ResolvedConfig): number {
  const { name, addedTokens } = parametersKindOf(config);
  const count = addedTokens?.(config) ?? 0;
  if (count > 0 && config.packing === true) {
    const reason = `finetuning_type ${name} puts tokens before each example, and packed rows hold several`;
    throw new LockstepError("E_CONFIG_CONFLICT", { keys: "packing and finetuning_type", reason });
  }
  return count;
}
