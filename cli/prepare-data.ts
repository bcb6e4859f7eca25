import { defaultOf, type ResolvedConfig } from "#lib/core/config/index";
import { LockstepError } from "#lib/core/errors/index";
import type { TokenBatch } from "#lib/core/job";
import {
  createTrainingPlan,
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

/** Progress is told after so much more text. */
const charactersPerDetail = 16 * 2 ** 20;

export interface PreparedData {
  readonly plan: TrainingPlan;
  /** Empty where nothing is kept for validation. */
  readonly validation: readonly TokenBatch[];
  /** Whether batches carry segments and positions. */
  readonly hasSegments: boolean;
  /** Whether batches carry token types. */
  readonly hasTokenTypes: boolean;
  /** Whether most examples are conversations, which the chat template renders. */
  readonly isChat: boolean;
  /** Names of the classes, by number, where rows are labelled. */
  readonly labels: readonly string[] | undefined;
  readonly trainReport: PreparationReport;
  readonly validationReport: PreparationReport | undefined;
  /** What there is to learn, and what was cut or left out: lines for a person. */
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
  /** Names of the classes that the model has. */
  readonly knownLabels: readonly string[];
  readonly onDetail: (detail: string) => void;
}

/** Reads, tokenises and lays out the data set of a configuration, and plans every step. */
export async function prepareData(
  config: ResolvedConfig,
  { maxPositions, onDetail, ...context }: DataContext,
): Promise<PreparedData> {
  onDetail("reading the data set");
  // The default is for models of today; an older one with fewer positions takes rows of its own length.
  const isShorter =
    config.max_length === defaultOf("max_length") && maxPositions < config.max_length;
  const sequenceLength = isShorter ? maxPositions : config.max_length;
  let nextDetail = charactersPerDetail;
  const dataset = await prepareDataset(
    {
      train: await sourcesOf(config, config.dataset),
      ...(config.eval_dataset === null
        ? {}
        : { validation: await sourcesOf(config, config.eval_dataset) }),
      validationFraction: config.validation_split,
      onBadRow: config.on_bad_row,
    },
    {
      ...context,
      sequenceLength,
      maxSequenceLength: maxPositions,
      seed: config.data_seed,
      packing: config.packing,
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
    const { train, validation } = dataset;
    if (validation === undefined && (config.eval_strategy !== "no" || config.eval_on_start)) {
      throw new LockstepError("E_CONFIG_CONFLICT", {
        keys: "eval_strategy, eval_on_start and validation_split",
        reason: "an evaluation is asked for, and no document is kept for validation",
      });
    }
    onDetail("planning the steps");
    const plan = createTrainingPlan({
      blocks: train.rows,
      seed: config.data_seed,
      samplesPerStep: config.global_batch_size,
      microBatchSize: config.per_device_train_batch_size,
      gradientGroups: config.gradient_groups,
      numEpochs: config.num_train_epochs,
      maxSteps: config.max_steps,
      sampling: config.train_sampling_strategy,
    });
    return {
      plan,
      validation:
        validation === undefined
          ? []
          : evaluationBatches(validation.rows, config.per_device_eval_batch_size),
      hasSegments: train.rows.hasSegments || validation?.rows.hasSegments === true,
      hasTokenTypes: train.rows.hasTokenTypes === true,
      isChat: dataset.isChat,
      labels: dataset.labels,
      trainReport: train.report,
      validationReport: validation?.report,
      dataLines: [
        ...describeData(dataset),
        ...(isShorter ? [`max_length is ${maxPositions} here, the model's own limit`] : []),
      ],
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

async function sourcesOf(
  config: ResolvedConfig,
  names: ResolvedConfig["dataset"],
): Promise<DataSource[]> {
  const sources = await findSources(names, {
    datasetDir: config.dataset_dir,
    textField: config.dataset_text_field,
    maxRows: config.max_samples,
  });
  const { dataset_format: format } = config;
  return format === "auto" ? sources : sources.map((source) => ({ format, ...source }));
}

/** The figures of one run's data, before it trains. */
export function describeData(dataset: PreparedDataset): string[] {
  const number = (value: number): string => value.toLocaleString("en");
  const rowKinds = {
    wrapped: "laid end to end",
    padded: "a row each",
    packed: "packed into rows that they share",
    labelled: `in ${dataset.labels?.length ?? 0} classes, ${dataset.train.rows.sequenceLength} tokens at most`,
  };
  const side = (name: string, report: PreparationReport): string => {
    const { numExamples, numRows, rowTokens, supervisedTokens, droppedTokens } = report;
    const cut =
      report.truncatedExamples === 0
        ? ""
        : `; ${number(report.truncatedExamples)} too long, ${number(report.truncatedTokens)} tokens cut off`;
    const dropped = droppedTokens - report.truncatedTokens;
    return (
      `${name}: ${number(numExamples)} example${numExamples === 1 ? "" : "s"} ${rowKinds[dataset.layout]}, ` +
      `${number(numRows)} rows, ${number(rowTokens)} tokens` +
      `${dataset.layout === "labelled" ? "" : `, ${number(supervisedTokens)} supervised`}` +
      `${cut}${dropped > 0 ? `; ${number(dropped)} tokens left over` : ""}`
    );
  };
  return [
    side("training", dataset.train.report),
    ...(dataset.validation === undefined ? [] : [side("validation", dataset.validation.report)]),
    ...(dataset.rejectedRows === 0
      ? []
      : [
          `${number(dataset.rejectedRows)} bad rows left out:`,
          ...dataset.listedRejections.map((message) => `  ${message}`),
        ]),
  ];
}
