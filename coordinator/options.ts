import type { LogEntry } from "#lib/checkpoint/trainer-state";
import type { Batch } from "#lib/core/batch";
import type { Metrics } from "#lib/core/events";
import type { WorkerJob } from "#lib/core/job";
import type { ElementRange } from "#lib/core/parameter-layout";
import type { KeptPiece, TensorStates } from "#lib/core/shard-arrays";
import type { LoadValues } from "#lib/core/wire-space";
import type { EarlyStopping, BestRule } from "#lib/objectives/early-stopping";
import type { WatchState } from "#lib/objectives/evaluation-watch";
import type {
  LossScalerState,
  LossTermsState,
  MetricScheduleState,
  UpdateSettings,
} from "#lib/optim/index";
import type { EventBus } from "#lib/wire/event-bus";
import type { ShardFiles } from "#lib/wire/reducer-messages";
import type { WireSecurity } from "#lib/wire/security";
import type { FrontDoor } from "./front-door.js";
import type { RunAccount } from "./run-account.js";
import type { RunJournal } from "./run-journal.js";
import type { RecoveredRun } from "./run-state.js";
import type { StartShard } from "./shards.js";
import type { PauseGate } from "./pause-gate.js";

/** Which rows belong to which step and group; `TrainingPlan` of lib/data is one. */
export interface StepSource {
  readonly totalSteps: number;
  /** @param step 0-based */
  microBatches(step: number, group: number): readonly Batch[];
  /** What a step's loss is divided by; of several terms, what all of them are together. */
  lossWeight(step: number): number;
  /** What each term of the loss is divided by, 0 where the step has no row of it; absent: there is one. */
  lossWeights?(step: number): readonly number[];
  rowsIn(step: number): number;
  /** Tokens of a step's rows with their padding; absent: all rows are as long as the job says. */
  tokensIn?(step: number): number;
  /** Tokens of a step's rows without their padding; absent: rows have none. */
  realTokens?(step: number): number;
  epochAt(completedSteps: number): number;
}

/** Masters and what the optimizer keeps of their elements, between two steps; training does not change them. */
export type Snapshot = readonly KeptPiece[];

/** The rows that the Fisher information is measured on before the first step, a row a batch. */
export interface FisherSource {
  readonly numRows: number;
  readonly numRounds: number;
  readonly maxRowsPerGroup: number;
  /** Whether it is scaled to a mean of 1. */
  readonly normalises: boolean;
  microBatches(round: number, group: number): readonly Batch[];
}

export interface CheckpointState extends WatchState {
  /** Steps completed: the next one to do. */
  readonly step: number;
  /** Optimizer updates made; smaller than `step` when steps with a non-finite gradient were skipped. */
  readonly numUpdates: number;
  readonly epoch: number;
  /** Tokens of all batches so far, targets or not. */
  readonly numInputTokens: number;
  readonly logHistory: readonly LogEntry[];
  /** Of a run in float16. */
  readonly lossScaler?: LossScalerState;
  /** What the schedule remembers, where the rate follows a metric of evaluations. */
  readonly schedule?: MetricScheduleState;
  /** Where weights of tasks are learnt. */
  readonly lossTerms?: LossTermsState;
  /** Absent in checkpoints of versions that kept none. */
  readonly account?: RunAccount;
}

export interface EvaluationResult {
  readonly step: number;
  /** Mean over what the objective counts: per supervised token, nats, of a causal model. */
  readonly loss: number;
  /** What the loss is a mean over. */
  readonly weight: number;
  readonly seconds: number;
  readonly metrics: Metrics;
}

export interface GeneratedSample {
  readonly step: number;
  readonly tokens: readonly number[];
  readonly prompt: string;
  readonly text: string;
  /** The prompt is a user's message, the text the answer. */
  readonly isChat?: boolean;
}

export interface CoordinatorOptions {
  readonly job: Omit<WorkerJob, "jobId"> & { readonly jobId?: string };
  readonly bus: EventBus;
  /** The same for as long as the run is gone on with. @default the job's id */
  readonly runId?: string;
  /** The life of the run's coordinator, larger than those before. @default a random one */
  readonly epoch?: number;
  /** Holds the run between two steps. */
  readonly pause?: PauseGate;
  /** Where the result goes, for workers that come when it is there. */
  readonly directory?: string;
  /** Share of the groups and of the evaluations' batches that two workers compute, 0 to 1. @default 0 */
  readonly verifyGroups?: number;
  /** Steps from one comparison of workers' weights to the next; beside the job's `fingerprints`. @default 0, never */
  readonly fingerprintSteps?: number;
  /** Decides which groups are verified. @default a random one, which nobody knows */
  readonly verifySeed?: string;
  readonly security?: WireSecurity;
  /** @default "127.0.0.1" */
  readonly listenHost?: string;
  /** 0 takes any free port. @default 0 */
  readonly listenPort?: number;
  /**
   * Where workers knock already, and who of them may come in; the coordinator closes it.
   * @default one on listenHost and listenPort, for workers of one kind
   */
  readonly door?: FrontDoor;
  /** Host under which workers reach the shards, where it differs from `listenHost`. */
  readonly advertiseHost?: string;
  readonly numShards: number;
  readonly gradientGroups: number;
  readonly plannedWorkers: number;
  /** Below these nothing new begins. @default 1 */
  readonly minWorkers?: number;
  /** Beyond these workers wait for a place. @default no limit but that of all runs */
  readonly maxWorkers?: number | undefined;
  readonly plan: StepSource;
  /** Fills `into` with the initial master weights of a range of the flat space; padding stays 0. */
  readonly loadMasters: (range: ElementRange, into: Float32Array) => Promise<void>;
  /** Fills `into` with a range of the frozen weights; absent: there are none. */
  readonly loadFrozen?: LoadValues | undefined;
  /** Where that lies in files, for shards in other processes, which read it by themselves. @default nowhere */
  readonly files?: ShardFiles;
  readonly updates: UpdateSettings;
  /** Where `updates` has the penalty of EWC. */
  readonly fisher?: FisherSource | undefined;
  readonly evaluation?: {
    readonly batches: readonly Batch[];
    readonly atStart: boolean;
    readonly atEnd: boolean;
    /** 0: only at start and end. */
    readonly everySteps: number;
    /** Steps before the first one that `everySteps` asks for. @default 0 */
    readonly delaySteps?: number;
    /** Rows of the batches that are data, not padding. @default all of them */
    readonly numRows?: number;
    /** Remember the best evaluation; the one at the start does not count. */
    readonly best?: BestRule;
    /** When evaluations end the run; beside `best`. @default never */
    readonly earlyStopping?: EarlyStopping;
    /** What a person who is warned of overfitting can do: the end of a sentence. */
    readonly advice?: string;
  };
  /** Rows whose loss tells what is forgotten, before training, beside each evaluation and at the end. */
  readonly general?: {
    readonly batches: readonly Batch[];
    /** Rows of the batches that are data, not padding. */
    readonly numRows: number;
  };
  readonly generation?: {
    readonly promptText: string;
    /** The prompt is a user's message, rendered by the chat template. @default false */
    readonly isChat?: boolean;
    readonly prompt: readonly number[];
    readonly maxNewTokens: number;
    readonly endTokenIds: readonly number[];
    readonly decode: (tokens: readonly number[]) => string | Promise<string>;
  };
  readonly checkpointing?: {
    /** 0: only when the run is interrupted. */
    readonly everySteps: number;
    /** Save after an evaluation that is better than all before. @default false */
    readonly whenBest?: boolean;
    /** Save after the last step too. @default false */
    readonly atEnd?: boolean;
    /**
     * Writes a checkpoint; training goes on meanwhile, the next save waits. What the file system refuses is repeated.
     *
     * @param onRead to be called when nothing more of the snapshot is read; @default at the end
     */
    readonly save: (
      snapshot: Snapshot,
      state: CheckpointState,
      tensorStates: TensorStates,
      onRead: () => void,
    ) => Promise<{
      readonly directory: string;
      readonly bytes: number;
      /** Of them, in files of the checkpoint before that were not stored again. */
      readonly sharedBytes?: number;
      /** Of them, read from shards of other processes, which could not write them there. */
      readonly relayedBytes?: number;
    }>;
    /** Larger arrays of the shards are not copied first, bytes. @default as `CopyChoice` has it */
    readonly copyLimitBytes?: number;
    /** How long the end of the run repeats a save that the file system refuses. @default 3600000 */
    readonly retryMs?: number;
  };
  /** Steps between two entries of the log history. @default 1 */
  readonly loggingSteps?: number;
  /** An entry for the first step too. @default false */
  readonly logsFirstStep?: boolean;
  /** Add token counts to the history, as `include_num_input_tokens_seen` does. @default false */
  readonly countsTokens?: boolean;
  /** Whether padding is counted with them. @default true */
  readonly countsPadding?: boolean;
  /** Floating-point operations of a token, forward and backward, for the history. @default 0 */
  readonly flosPerToken?: number;
  /** Without a door: how long a kind of device that few have is not chosen. @default 30000 */
  readonly kindWaitMs?: number;
  /** @default 2000 */
  readonly heartbeatIntervalMs?: number;
  /** @default 10000 */
  readonly heartbeatTimeoutMs?: number;
  /** @default 600000 */
  readonly leaseTimeoutMs?: number;
  /** Within which the bytes of a group must have come that a worker reported. @default 5000 */
  readonly bytesAfterReportMs?: number;
  readonly resume?: {
    readonly state: CheckpointState;
    /** Fills what the optimizer keeps of whole tensors; absent: it keeps nothing. */
    readonly loadTensorStates?: (states: TensorStates) => Promise<void>;
    /** Fills what the optimizer keeps of a range, by name; masters come from `loadMasters`. */
    readonly loadStates: (
      range: ElementRange,
      states: Readonly<Record<string, Float32Array>>,
    ) => Promise<void>;
  };
  /** Whether the run begins again at the same door after this error: it stays open then, and workers stay. */
  readonly beginsAgainAfter?: (error: unknown) => boolean;
  /**
   * What a coordinator that died had come to: the run goes on from there where the shards are at it, and else as
   * `resume` says.
   */
  readonly recovery?: RecoveredRun;
  /** Whether another coordinator may have had the run before, whose workers are on their way. @default false */
  readonly mayTakeOver?: boolean;
  /** Where what the run comes to is written, before anything relies on it; absent: shards end with the coordinator. */
  readonly journal?: RunJournal;
  /** How a shard is started; a thread by default. */
  readonly startShard?: StartShard;
}

export interface RunOutcome {
  /** Whether all steps were made. */
  readonly outcome: "finished" | "interrupted";
  /** Whether nothing is left to do: a stop after the last step leaves its evaluation. */
  readonly isWhole: boolean;
  /** Steps completed. */
  readonly step: number;
  readonly mastersSha256: string;
  readonly state: CheckpointState;
  readonly evaluations: readonly EvaluationResult[];
  readonly samples: readonly GeneratedSample[];
  /** The final masters, and what the optimizer keeps; until shards in other processes are released. */
  readonly snapshot: Snapshot;
  readonly seconds: number;
  /** @param isSaved whether the result is: nothing more is asked of the shards, whose processes end */
  readonly releaseShards: (isSaved: boolean) => Promise<void>;
}
