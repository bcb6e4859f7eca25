import type { ResolvedConfig } from "#lib/config/index";
import type { RunIdentity } from "#lib/checkpoint/run-identity";
import type { Batch, BatchField } from "#lib/core/batch";
import { LockstepError } from "#lib/core/errors/index";
import type { ObjectiveJob } from "#lib/core/job";
import {
  createTrainingPlan,
  evaluationBatches,
  type PreparationReport,
  type PreparedDataset,
  rowsSha256,
  type TrainingPlan,
} from "#lib/data/index";
import type { Objective } from "#lib/objectives/index";
import { describeData, describeSides } from "./describe-data.js";
import { type GeneralData, prepareGeneral } from "./general-data.js";
import { type DataContext, prepareRows } from "./prepare-rows.js";

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
  /** Of `general_dataset`: rows that are learnt of as the next token. */
  readonly general: GeneralData | undefined;
  /** What there is to learn on both sides, and what was cut: lines for a person. */
  readonly layoutLines: readonly string[];
  /** The same, and the rows that were left out. */
  readonly dataLines: readonly string[];
  /** SHA-256 of the rows of each side, by their content; validation is null where nothing is kept for it. */
  readonly dataDigests: () => Promise<RunIdentity["data"]>;
  /** After it the plan gives no more batches. */
  readonly closeData: () => void;
}

/** Reads, tokenises and lays out the data set of a configuration, and plans every step. */
export async function prepareData(
  config: ResolvedConfig,
  context: DataContext,
): Promise<PreparedData> {
  const sources = { dataset: config.dataset, evalDataset: config.eval_dataset };
  const rows = await prepareRows(config, sources, context);
  const { dataset, learnt, objective, batchFields, labels, notes } = rows;
  let general: GeneralData | undefined;
  const closeData = (): void => {
    dataset.close();
    general?.close();
  };
  try {
    general = await prepareGeneral(config, rows, context);
    const { train, validation } = dataset;
    if (validation === undefined && (config.eval_strategy !== "no" || config.eval_on_start)) {
      throw new LockstepError("E_CONFIG_CONFLICT", {
        keys: "eval_strategy, eval_on_start and validation_split",
        reason: ["an evaluation is asked for, and no row is there for it", ...dataset.notes].join(
          "; ",
        ),
      });
    }
    context.onDetail("planning the steps");
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
      batchFields,
      isChat: dataset.isChat,
      labels,
      trainReport: train.report,
      validationReport: validation?.report,
      general,
      layoutLines: [...describeSides(dataset), ...notes, ...(general?.layoutLines ?? [])],
      dataLines: [...describeData(dataset), ...notes, ...(general?.dataLines ?? [])],
      dataDigests: async () => ({
        training: await rowsSha256(train.rows),
        validation: validation === undefined ? null : await rowsSha256(validation.rows),
        ...(await general?.digests()),
      }),
      closeData,
    };
  } catch (error) {
    closeData();
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
