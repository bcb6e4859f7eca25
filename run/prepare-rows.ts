import {
  defaultOf,
  isConfigKey,
  isCutoffLength,
  placeOf,
  type ResolvedConfig,
} from "#lib/config/index";
import type { BatchField } from "#lib/core/batch";
import { LockstepError } from "#lib/core/errors/index";
import { counted, withCommas } from "#lib/core/format";
import type { ObjectiveJob } from "#lib/core/job";
import {
  type DataObserver,
  type DataSource,
  findSources,
  type PreparedDataset,
  prepareDataset,
  type Tokenizer,
} from "#lib/data/index";
import { minSequenceLength } from "#lib/data/sequence-length";
import { batchTargets, type Objective, objectiveOf } from "#lib/objectives/index";
import { parametersKindOf } from "#lib/parameters/index";
import { checkChatFormat } from "./chat-format.js";
import { hasNoise } from "./dropout.js";
import {
  changedClasses,
  changedProblem,
  checkObjectiveKeys,
  labelledObjective,
  pairObjective,
  textObjective,
} from "./objective.js";

/** Progress is told after so much more text. */
const charactersPerDetail = 16 * 2 ** 20;

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

/** Files of one data set: what is learnt of, and what only validates. */
interface RowSources {
  readonly dataset: ResolvedConfig["dataset"];
  /** Null: a share of `dataset` does. */
  readonly evalDataset: ResolvedConfig["eval_dataset"];
  /** What a row with a label ends with; absent: labels are learnt. */
  readonly refuseLabels?: () => LockstepError;
  /** Keys of objectives may be for other rows of the run. @default false */
  readonly isOneOfSeveral?: boolean;
}

/** The rows of one data set, and what is learnt of them. */
export interface LearntRows {
  readonly dataset: PreparedDataset;
  readonly learnt: Objective;
  readonly objective: ObjectiveJob;
  /** What a batch of them carries. */
  readonly batchFields: readonly BatchField[];
  /** Names of the classes, by number, where rows are labelled. */
  readonly labels: readonly string[] | undefined;
  /** Lines for a person. */
  readonly notes: readonly string[];
}

/** Reads, tokenises and lays out one data set, and chooses what is learnt of it. Close the data set in the end. */
export async function prepareRows(
  config: ResolvedConfig,
  { dataset: trained, evalDataset, refuseLabels, isOneOfSeveral = false }: RowSources,
  { maxPositions: modelPositions, onDetail, learnsLabels, ...context }: DataContext,
): Promise<LearntRows> {
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
      train: await sourcesOf(config, trained, learnsLabels),
      ...(evalDataset === null
        ? {}
        : { validation: await sourcesOf(config, evalDataset, learnsLabels) }),
      validationFraction: config.validation_split,
      onBadExample: config.on_bad_row,
    },
    {
      ...context,
      labelReaderOf: (first) => {
        if (refuseLabels !== undefined) throw refuseLabels();
        const objective = labelledObjective(config, context.problemType, first);
        labelled = objective;
        return objective.labels;
      },
      pairTargets: pairTargetsOf(config),
      sequenceLength,
      maxSequenceLength: maxPositions,
      withLengths: hasNoise(config),
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
    const { train } = dataset;
    const isPaired = dataset.layout === "paired";
    const isLabelled = dataset.classes !== undefined;
    const ofRows = isPaired ? pairObjective(config) : isLabelled ? labelled : undefined;
    const { kind } = ofRows ?? textObjective(config);
    const learnt = objectiveOf(kind);
    const labels = dataset.classes?.names ?? learnt.head?.labels;
    if (isPaired && config.packing === true) {
      const reason = "the two answers of a pair have a row, which holds no other";
      throw new LockstepError("E_CONFIG_CONFLICT", { keys: "packing and dataset", reason });
    }
    if (!isOneOfSeveral) checkObjectiveKeys(config, learnt);
    const settings = learnt.settings?.(config, {
      names: labels ?? [],
      numRows: train.rows.numRows,
      targetsOf: (row) => train.rows.targetsOf?.(row) ?? {},
      placeOf: (key) => (isConfigKey(key) ? placeOf(config, key) : ""),
    });
    const { isWeighted } = dataset;
    if (isWeighted && learnt.weights === undefined) {
      throw new LockstepError("E_CONFIG_CONFLICT", {
        keys: "dataset and objective",
        reason: `rows or messages have weights, and the loss of ${kind} has none`,
      });
    }
    const objective: ObjectiveJob = {
      kind,
      ...(isWeighted ? { isWeighted } : {}),
      ...(labels === undefined ? {} : { numLabels: labels.length }),
      ...(settings === undefined || Object.keys(settings).length === 0 ? {} : { settings }),
    };
    const becomes = isOneOfSeveral ? undefined : newHeadNote(dataset, learnt);
    const classifierNotes =
      becomes !== undefined && !learnsLabels
        ? [becomes]
        : [
            ...changedProblem(context.problemType, learnt.head?.problemType ?? kind),
            ...changedClasses(context.knownLabels, labels ?? []),
          ];
    const limit = isShorter ? [`max_length is ${maxPositions} here, the model's own limit`] : [];
    const lossNotes = [
      ...(isWeighted ? [weightsNote] : []),
      ...(learnt.notes?.(objective, labels ?? []) ?? []),
    ];
    const notes = [
      ...classifierNotes,
      ...lossNotes,
      ...marginNotes(dataset),
      ...cutNotes(config, dataset),
      ...limit,
    ];
    return {
      ...{ dataset, learnt, objective, labels, notes },
      batchFields: [...train.rows.inputs, ...batchTargets(learnt, objective)],
    };
  } catch (error) {
    dataset.close();
    throw error;
  }
}

/** What a model of texts is made into where its rows ask for another head. */
function newHeadNote({ classes }: PreparedDataset, { head }: Objective): string | undefined {
  if (head !== undefined)
    return "a model of texts becomes a reward model, with a head of one number";
  if (classes === undefined) return undefined;
  const made = classes.areNumbers === true ? "a regression" : "a classifier";
  return `a model of texts becomes ${made}, since rows have a label; dataset_format: text trains on their texts instead`;
}

/** What is told of margins that pairs say. */
function marginNotes({ numMargins, train, validation }: PreparedDataset): readonly string[] {
  if (numMargins === 0) return [];
  const numPairs = train.examples.length + (validation?.examples.length ?? 0);
  return [
    numMargins >= numPairs
      ? "all pairs say a margin, which their loss takes from the difference of the rewards"
      : `${counted(numMargins, "pair")} of ${withCommas(numPairs)} say a margin, which their loss takes from the difference of the rewards; that of the others is 0`,
  ];
}

/** What is told of a file of LLaMA-Factory whose rows are cut in another place than there. */
function cutNotes(
  config: ResolvedConfig,
  { layout, train, validation }: PreparedDataset,
): readonly string[] {
  const numCut = train.report.truncatedExamples + (validation?.report.truncatedExamples ?? 0);
  if (numCut === 0 || layout === "labelled" || !isCutoffLength(config)) return [];
  return [
    `${counted(numCut, "example")} longer than cutoff_len: the end is cut off here, where LLaMA-Factory divides the length between prompts and answers`,
  ];
}

/** What rows with a chosen and a rejected answer carry, should the data set have some. */
function pairTargetsOf(config: ResolvedConfig): readonly BatchField[] {
  const asked = config.objective === "auto" ? undefined : objectiveOf(config.objective);
  if (asked !== undefined && asked.comparesPairs !== true) return [];
  const { kind, targets } = pairObjective(config);
  return targets({ kind });
}

const weightsNote =
  "losses are weighted means, in evaluations too: rows or messages have weights (columns.weight, weight)";

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
