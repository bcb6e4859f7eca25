import type { z } from "zod";
import type { Batch, BatchField, FieldArray } from "#lib/core/batch";
import type { ObjectiveJob, ObjectiveSettings } from "#lib/core/job";
import type { LabelReader } from "#lib/core/labels";

/**
 * What a run learns, as everybody but the engine knows it; lib/tuning/objectives has the loss of the same
 * name. One that has a `problem_type` in transformers is called by it.
 */
export interface Objective<Fields extends z.ZodRawShape = z.ZodRawShape> {
  readonly kind: string;
  /** What a loss is a mean over, for a person: "token". */
  unit(job: ObjectiveJob): string;
  /** Keys of the configuration that it reads; with another value of one it is another run. */
  readonly fields: Fields;
  /**
   * What these keys come to in a job.
   *
   * @throws E_CONFIG_INVALID for values that the labels do not have
   */
  settings?(config: z.output<z.ZodObject<Fields>>, labels: LearntLabels): ObjectiveSettings;
  /** What a person is told of the settings. @param names of the classes */
  notes?(job: ObjectiveJob, names: readonly string[]): readonly string[];
  /** Of rows with a label; absent: no row has one. */
  readonly labels?: LabelReader;
  /** Rows are pairs of sequences, a chosen and a rejected one. @default false */
  readonly comparesPairs?: boolean;
  /** The head that a model gets for it where its rows have no labels; absent: it keeps its own. */
  readonly head?: {
    readonly labels: readonly string[];
    /** transformers' name of what such a head learns. */
    readonly problemType: string;
  };
  /** The loss compares the model with the one that the run starts from, which stays there. @default false */
  readonly hasReference?: boolean;
  /** Its metrics are told of training steps too. @default false */
  readonly scoresTraining?: boolean;
  /** What the loss compares the model with. */
  targets(job: ObjectiveJob): readonly BatchField[];
  /** Half of its loss is a negative log-likelihood of unit variance, as of a squared error. @default false */
  readonly isSquaredError?: boolean;
  /** What batches carry where rows or tokens count by weights; absent: it has none, and such rows are refused. */
  readonly weights?: BatchField;
  /** By how much rows count in the loss: what a step is divided by. */
  weightOf(targets: Batch["fields"], job: ObjectiveJob): number;
  /** Figures of an evaluation beside its loss. */
  readonly metrics: readonly Metric[];
  /** What an evaluation returns of each row, where a metric is made of it. */
  outputs?(job: ObjectiveJob): BatchField;
  /** Counts what metrics are made of. */
  scorer?(job: ObjectiveJob): Scorer;
  /** transformers' labels as targets; absent: it has none for what is learnt. */
  targetsOfLabels?(labels: TransformersLabels): Batch["fields"];
}

/** What batches carry for a job's objective. */
export const batchTargets = (
  { targets, weights }: Objective,
  job: ObjectiveJob,
): readonly BatchField[] => [
  ...targets(job),
  ...(job.isWeighted === true && weights !== undefined ? [weights] : []),
];

/** The labels of the rows to train on; rows without labels have none. */
export interface LearntLabels {
  /** Names of the classes, by number. */
  readonly names: readonly string[];
  readonly numRows: number;
  targetsOf(row: number): Batch["fields"];
  /** "file:line" or "flag --key" where a person gave the key, for errors; "" where nobody did. */
  placeOf(key: string): string;
}

/** A figure of an evaluation. */
export interface Metric {
  /** `eval_` and this in files; a label of the metrics page; a key of events. */
  readonly key: string;
  /** For a person. */
  readonly label: string;
  /** Of the metrics page: what it is, as a sentence. */
  readonly help: string;
  readonly greaterIsBetter: boolean;
  /** Digits after the point that a person is shown. */
  readonly digits: number;
  /** A share, 0 to 1. */
  readonly isRatio: boolean;
  /** Of an objective that scores training: shown of steps too. @default false */
  readonly isOfSteps?: boolean;
  /** Of a run with several: whose it is. */
  readonly task?: string;
  /** Of the mean loss, which the history has already; absent: the scorer has it. */
  readonly ofLoss?: (loss: number) => number;
}

export interface Scorer {
  /** @throws RangeError for outputs that no model of the job has, with the reason */
  add(batch: Batch, outputs: FieldArray | undefined): void;
  /** By the metrics' keys. */
  values(): Readonly<Record<string, number>>;
}

/** Labels as transformers takes them. */
interface TransformersLabels {
  readonly numRows: number;
  /** Tokens of a row. */
  readonly rowLength: number;
  /** Token ids [B, T] that are not shifted, class ids [B], or numbers [B] or [B, L]; below 0: ignored. */
  readonly labels: readonly number[];
  readonly labelsPerRow: number;
}
