import type { ResolvedConfig } from "#lib/config/index";
import type { RunIdentity } from "#lib/checkpoint/run-identity";
import type { Batch, BatchField } from "#lib/core/batch";
import { LockstepError } from "#lib/core/errors/index";
import type { ObjectiveJob, TaskJob } from "#lib/core/job";
import {
  createMixedPlan,
  createTrainingPlan,
  evaluationBatches,
  type PreparationReport,
  type PreparedDataset,
  type TrainingPlan,
} from "#lib/data/index";
import type { LossTermsSettings } from "#lib/optim/index";
import { describeData, describeSides } from "./describe-data.js";
import { type GeneralData, prepareGeneral } from "./general-data.js";
import { mixtureOf } from "./mixture.js";
import type { DataContext } from "./prepare-rows.js";
import { type HeadedTask, mainTask } from "./task-heads.js";
import { type LearntTask, prepareTasks, tasksSha256 } from "./prepare-tasks.js";

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
  /** Where batches are of several tasks; what is above is of the run's model then. */
  readonly tasks: readonly TaskJob[] | undefined;
  /** Of a run with several tasks: what decides their heads. */
  readonly headed: readonly HeadedTask[];
  /** Where the loss is a weighted sum of means. */
  readonly lossTerms: LossTermsSettings | undefined;
  /** Names of the classes, by number, where rows are labelled. */
  readonly labels: readonly string[] | undefined;
  readonly trainReport: PreparationReport;
  readonly validationReport: PreparationReport | undefined;
  /** Tokens of all rows to train on, without padding. */
  readonly numTrainTokens: number;
  readonly numValidationRows: number;
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

/** Reads, tokenises and lays out the data of a configuration, and plans every step. */
export async function prepareData(
  config: ResolvedConfig,
  context: DataContext,
): Promise<PreparedData> {
  const learnt = await prepareTasks(config, context);
  const main = learnt[mainTask(learnt)] ?? learnt[0];
  const { dataset, objective, batchFields, labels } = main;
  let general: GeneralData | undefined;
  const closeData = (): void => {
    for (const task of learnt) task.dataset.close();
    general?.close();
  };
  try {
    // General rows are learnt of as the next token, in batches of the first task that is.
    const ofTask = Math.max(
      0,
      learnt.findIndex((task) => task.objective.kind === "causal_lm"),
    );
    general = await prepareGeneral(config, learnt[ofTask] ?? learnt[0], context);
    refuseMissingValidation(config, learnt);
    context.onDetail("planning the steps");
    const mixture = mixtureOf(config, learnt, general, ofTask);
    const [first, ...otherParts] = mixture.parts;
    const settings = {
      seed: config.data_seed,
      rowsPerStep: config.global_batch_size,
      microBatchSize: config.per_device_train_batch_size,
      gradientGroups: config.gradient_groups,
      numEpochs: config.num_train_epochs,
      maxSteps: config.max_steps,
      sampling: config.train_sampling_strategy,
    };
    const plan =
      otherParts.length === 0
        ? createTrainingPlan({ rows: first.rows, ...settings })
        : createMixedPlan(mixture.parts, settings);
    const linesOf = (
      describe: typeof describeData,
      ofGeneral: readonly string[] | undefined,
    ): readonly string[] => [
      ...learnt.flatMap(({ name, notes, ...task }) => {
        const of = name === undefined ? "" : `${name} `;
        return [...describe(task.dataset, of), ...notes.map((note) => `${of}${note}`)];
      }),
      ...(ofGeneral ?? []),
      ...mixture.lines,
    ];
    const sumOf = (value: (task: LearntTask) => number): number =>
      learnt.reduce((sum, task) => sum + value(task), 0);
    return {
      plan,
      dataset,
      validation: learnt.flatMap((task, index) => {
        const side = task.dataset.validation;
        if (side === undefined) return [];
        const batches = evaluationBatches(side.rows, config.per_device_eval_batch_size);
        return index === 0 ? batches : batches.map((batch) => ({ ...batch, task: index }));
      }),
      objective,
      batchFields,
      isChat: dataset.isChat,
      tasks: mixture.tasks,
      headed: learnt[0].name === undefined ? [] : learnt,
      lossTerms: mixture.terms,
      labels,
      trainReport: dataset.train.report,
      validationReport: dataset.validation?.report,
      numTrainTokens: sumOf((task) => task.dataset.train.report.rowTokens),
      numValidationRows: sumOf((task) => task.dataset.validation?.report.numRows ?? 0),
      general: general === undefined || ofTask === 0 ? general : inTask(general, ofTask),
      layoutLines: linesOf(describeSides, general?.layoutLines),
      dataLines: linesOf(describeData, general?.dataLines),
      dataDigests: async () => ({
        training: (await tasksSha256(learnt, (task) => task.dataset.train.rows)) ?? "",
        validation: await tasksSha256(learnt, (task) => task.dataset.validation?.rows),
        ...(await general?.digests()),
      }),
      closeData,
    };
  } catch (error) {
    closeData();
    throw error;
  }
}

const inTask = (general: GeneralData, task: number): GeneralData => ({
  ...general,
  task,
  validation: general.validation.map((batch) => ({ ...batch, task })),
});

/** @throws E_CONFIG_CONFLICT where an evaluation is asked for that no row is kept for */
function refuseMissingValidation(config: ResolvedConfig, learnt: readonly LearntTask[]): void {
  const missing = learnt.find(({ dataset }) => dataset.validation === undefined);
  if (missing === undefined) return;
  const isAsked = config.eval_strategy !== "no" || config.eval_on_start;
  // The sum of the tasks' losses would lack one.
  const lacksOne = config.eval_on_end && learnt.some(({ dataset }) => dataset.validation);
  if (!isAsked && !lacksOne) return;
  const { name, dataset } = missing;
  const ofTask = name === undefined ? "" : ` of task ${name}`;
  throw new LockstepError("E_CONFIG_CONFLICT", {
    keys: `${isAsked ? "eval_strategy, eval_on_start" : "eval_on_end"} and validation_split`,
    reason: [
      `an evaluation is asked for, and no row${ofTask} is there for it`,
      ...dataset.notes,
    ].join("; "),
  });
}
