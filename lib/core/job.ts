import type { Batch, BatchField, FieldArray } from "./batch.js";
import type { DropoutJob } from "./dropout.js";
import type { Precision } from "./dtype.js";
import type { Fingerprint } from "./held-weights.js";
import { LockstepError } from "./errors/index.js";
import type { ParameterLayout } from "./parameter-layout.js";

/** What a worker needs to know of a job to compile its graphs; it travels once, at registration. */
export interface WorkerJob {
  readonly jobId: string;
  /** The model's `config.json`, parsed. */
  readonly modelConfig: Readonly<Record<string, unknown>>;
  /** What is trained: the flat space of gradients and updates. */
  readonly layout: ParameterLayout;
  /** The model's weights that stay as they are, a space of its own that travels once; absent: there are none. */
  readonly frozen?: ParameterLayout;
  readonly precision: Precision;
  /** Tokens in a row of a batch. */
  readonly sequenceLength: number;
  readonly objective: ObjectiveJob;
  /** What a batch carries: the model's inputs, then the objective's targets. */
  readonly batchFields: readonly BatchField[];
  /**
   * Where batches are of several kinds, each with what is learnt of it; the first is what the three keys above
   * say. A batch is of one of them.
   */
  readonly tasks?: readonly TaskJob[];
  /** Whether backward computes the activations of each block again instead of keeping them. */
  readonly gradientCheckpointing?: boolean;
  /** Which values training drops; absent: none. */
  readonly dropout?: DropoutJob;
  /** False where every gradient group is one micro-batch, so that nothing is accumulated. */
  readonly accumulates?: boolean;
  /** Gradients of single rows of this task are squared, for the Fisher information, before the first step; absent: none. */
  readonly squares?: { readonly task: number };
  /** Whether an engine is asked what weights it holds; absent: it is not. */
  readonly fingerprints?: true;
  /** Rows in a training micro-batch. */
  readonly microBatchSize: number;
  /** Rows in an evaluation batch. */
  readonly evalBatchSize: number;
  /** Longest prompt plus continuation, tokens. */
  readonly generationLength: number;
  /** Whether XLA compiles forward and backward as one function, products included. */
  readonly xla?: boolean;
  /** Intra-op threads: part of what decides the bits, so a setting of the job. */
  readonly threadsPerWorker: number;
  /** How the model sees what is trained. */
  readonly parameters: ParametersJob;
}

/** The way that chose what is trained, and what else an engine has to know of it: plain JSON. */
export interface ParametersJob {
  /** A name of `lib/parameters`. */
  readonly kind: string;
}

/** Rows of one kind, and what is learnt of them. */
export interface TaskJob extends Pick<WorkerJob, "sequenceLength" | "objective" | "batchFields"> {
  readonly name: string;
  /** False: nothing of it validates. @default true */
  readonly isEvaluated?: boolean;
  /** Its own head beside that of the job's model. */
  readonly head?: {
    /** Before the names of the head's tensors in the job's spaces. */
    readonly prefix: string;
    /** Fields of config.json that its model has beside or instead of the job's. */
    readonly configChanges: Readonly<Record<string, unknown>>;
  };
}

/**
 * The job as a batch's rows see it: with the objective, the fields and the length of their task.
 *
 * @throws E_MESSAGE_INVALID for a task that the job does not have
 */
export function jobOfTask<Job extends TaskedJob>(job: Job, task = 0): Job {
  const own = job.tasks?.[task];
  if (own !== undefined) {
    const { sequenceLength, objective, batchFields } = own;
    return { ...job, sequenceLength, objective, batchFields };
  }
  if (job.tasks === undefined && task === 0) return job;
  throw new LockstepError("E_MESSAGE_INVALID", {
    ...{ message: "Batch", field: "task" },
    reason: `is ${task}, and the job has ${job.tasks?.length ?? 1}`,
  });
}

/** What of a job batches are made and read by. */
export interface TaskedJob extends Pick<WorkerJob, "sequenceLength" | "objective" | "batchFields"> {
  readonly tasks?: readonly TaskJob[] | undefined;
}

/** What the model learns, as its objective of this name computes it. */
export interface ObjectiveJob {
  readonly kind: string;
  /** Classes, where rows are labelled. */
  readonly numLabels?: number;
  /** Whether rows, or their tokens, count by weights that batches carry; absent: they count alike. */
  readonly isWeighted?: boolean;
  /** Absent: all of it is as the objective has it by default. */
  readonly settings?: ObjectiveSettings;
}

/** What an objective is set to, by names that it knows: plain JSON. */
export type ObjectiveSettings = Readonly<Record<string, number | string | readonly number[]>>;

/** Sums, never means: the coordinator divides once. */
export interface LossSum {
  readonly lossSum: number;
  /** What the sum is divided by, of these rows: supervised tokens, rows, or outputs. */
  readonly weight: number;
}

export interface EvaluatedBatch extends LossSum {
  /** What the model says of each row, where the objective makes metrics of it: [numRows, its `outputs`]. */
  readonly outputs?: FieldArray;
}

/**
 * Computes on one device. All calls are synchronous: an engine lives in a thread of its own.
 * Implementations: `lib/tuning` (TensorFlow graph), `tests/` (arithmetic without TensorFlow).
 */
export interface TrainingEngine {
  /** Estimated peak memory of the process, bytes, without what callers hold; absent: unknown. */
  readonly plannedBytes?: number | undefined;
  /**
   * Only for a job with frozen weights, for each of `wirePieces` of theirs, before everything else.
   * @param wireBytes the piece in wire form; may be changed after the call
   */
  loadFrozen?(piece: number, wireBytes: Uint8Array): void;
  /**
   * Sets what is trained, all of it or a piece; nothing is computed between two pieces of a version.
   *
   * @param wireBytes in wire form; may be changed after the call
   * @param piece which of `wirePieces` of the layout; absent: the whole space
   */
  loadParameters(wireBytes: Uint8Array, piece?: number): void;
  /**
   * Forward and backward of one micro-batch of a group; gradients are those of `gradScale * lossSum`.
   *
   * @param first whether the group starts here: what was accumulated before does not count
   * @param wireBytes given with the group's last micro-batch: gets the group's gradient in wire form
   *   (bf16 round to nearest even for matrices of a bf16 job); the accumulated sum is spent then
   * @returns with outputs where the objective's metrics are told of training too
   */
  accumulate(
    batch: Batch,
    gradScale: number,
    first: boolean,
    wireBytes?: Uint8Array,
  ): EvaluatedBatch;
  /**
   * Only for a job with `squares`: as `accumulate`, of the squares of the gradient of a batch's one row's negative
   * log-likelihood, nothing dropped.
   */
  accumulateSquares?(batch: Batch, first: boolean, wireBytes?: Uint8Array): EvaluatedBatch;
  /**
   * Only for a job with `fingerprints`: reads back the weights that it computes with.
   *
   * @param piece which of `wirePieces` of the space's `heldLayout`
   * @param into of the piece's size in that form; what is between tensors stays as it is
   */
  readHeld?(space: Fingerprint["space"], piece: number, into: Uint8Array): void;
  evaluate(batch: Batch): EvaluatedBatch;
  /** Greedy continuation; stops after an end token (which is not returned) or at the job's generationLength. */
  generate(prompt: Int32Array, maxNewTokens: number, endTokenIds: readonly number[]): Int32Array;
  close(): void;
}

/** Loads an engine; the default export of an engine module. */
export type CreateTrainingEngine = (job: WorkerJob) => Promise<TrainingEngine>;
