import type { DropoutRates } from "./dropout.js";
import type { GeneralLoss } from "./forgetting.js";
import type { ShardEvent } from "./shard-events.js";

/** What happens in a run, as facts: the progress display, metrics, dashboard and logs all read these. */
export type LockstepEvent =
  | RunStarted
  | RunResumed
  | { readonly type: "phase.changed"; readonly phase: RunPhase; readonly detail?: string }
  /** A line for a person: where the dashboard is, why a worker ended, what has no effect here. */
  | { readonly type: "note"; readonly text: string }
  | {
      readonly type: "worker.joined";
      readonly workerId: string;
      readonly host: string;
      readonly pid: number;
      readonly deviceKind: string;
      readonly deviceType: "cpu" | "gpu";
      /** How many times the time of float32 products the run's bfloat16 ones take on this device. */
      readonly bf16Slowdown?: number;
      /** The same of float16 ones; 0: not less, and not measured. */
      readonly fp16Slowdown?: number;
    }
  | { readonly type: "worker.lost"; readonly workerId: string; readonly reason: string }
  /** It said goodbye: the job is over, or it was asked to stop. No failure. */
  | { readonly type: "worker.left"; readonly workerId: string; readonly reason: string }
  | {
      /** It is not asked any more: for good, or for a time. */
      readonly type: "worker.quarantined";
      readonly workerId: string;
      readonly reason: string;
      readonly seconds?: number;
    }
  | {
      readonly type: "worker.state";
      readonly workerId: string;
      readonly state: WorkerState;
      readonly step?: number;
      readonly group?: number;
    }
  | WorkerTelemetry
  | {
      readonly type: "group.leased";
      /** 0-based in all events of groups: the updates made before it. */
      readonly step: number;
      readonly group: number;
      readonly workerId: string;
      readonly attempt: number;
      /** Another worker is at it too, and slow: the first result counts. */
      readonly isBackup?: true;
      /** In all events of groups: `step` is a round of the Fisher information, before training. */
      readonly isMeasurement?: true;
    }
  | {
      readonly type: "group.completed";
      readonly step: number;
      readonly group: number;
      readonly workerId: string;
      readonly seconds: number;
      /** Its part of what the step's loss is divided by. */
      readonly weight: number;
      readonly isMeasurement?: true;
    }
  | {
      readonly type: "group.requeued";
      readonly step: number;
      readonly group: number;
      readonly workerId: string;
      readonly reason: string;
      readonly isMeasurement?: true;
    }
  | {
      /** Workers computed different bits for one group, or one batch of an evaluation; it is computed once more. */
      readonly type: "group.diverged";
      readonly step: number;
      readonly group: number;
      readonly workerIds: readonly string[];
      readonly isEvaluation?: boolean;
    }
  | {
      /** A shard refused bytes for whose they are. */
      readonly type: "push.refused";
      /** The name that the call gave. */
      readonly workerId: string;
      readonly peer: string;
      readonly code: string;
      readonly reason: string;
      /** Others before it that no event tells of: they came too fast. */
      readonly numUntold: number;
    }
  | StepCompleted
  | {
      /** What EWC weighs weights by is there: their Fisher information on general rows. */
      readonly type: "fisher.measured";
      readonly numRows: number;
      /** Of a row's gradient: the mean of its squares over rows and trained elements, before it is normalised. */
      readonly meanSquare: number;
      readonly seconds: number;
    }
  | {
      readonly type: "evaluation.completed";
      readonly step: number;
      readonly loss: number;
      /** What the loss is a mean over: the objective's unit says of what. */
      readonly weight: number;
      readonly seconds: number;
      readonly metrics: Metrics;
      /** Mean training loss of the steps since the evaluation before; absent where there was none. */
      readonly trainLoss?: number;
    }
  | ({
      /** The loss of general rows, which tells what a run forgets. */
      readonly type: "general.evaluated";
      /** Tokens that the loss is a mean over. */
      readonly weight: number;
      readonly seconds: number;
    } & GeneralLoss)
  | {
      /** The run's history has a new entry, as transformers' `log_history` has. */
      readonly type: "history.logged";
      readonly entry: Readonly<Record<string, number | null>>;
      readonly totalSteps: number;
      /** Of training, over all processes of the run. */
      readonly elapsedSeconds: number;
      readonly numInputTokens: number;
    }
  | {
      readonly type: "sample.generated";
      readonly step: number;
      readonly prompt: string;
      readonly text: string;
      /** The prompt is a user's message, the text the assistant's answer. */
      readonly isChat?: boolean;
    }
  | {
      readonly type: "checkpoint.saved";
      readonly step: number;
      readonly directory: string;
      readonly seconds: number;
      readonly bytes: number;
      /** Of them, in files of the checkpoint before that were not stored again. */
      readonly sharedBytes?: number;
      /** In memory, of what shards of other processes keep: the coordinator read it there and wrote it for them. */
      readonly relayedBytes?: number;
      /** For which training stood still; absent for the result. */
      readonly waitSeconds?: number;
    }
  | {
      /** The file system refused a checkpoint or the result; what was saved before is whole. */
      readonly type: "checkpoint.failed";
      readonly step: number;
      /** Of the error catalogue, as the message. */
      readonly code: string;
      readonly message: string;
      /** Until the next attempt; null: there is none. */
      readonly retryInMs: number | null;
    }
  | {
      readonly type: "bytes.transferred";
      readonly direction: "gradients" | "parameters";
      readonly shard: number;
      readonly bytes: number;
    }
  | {
      /** Closed for the limits' sake, within a second. */
      readonly type: "connections.refused";
      readonly port: "control" | "shard" | "http";
      readonly reason: ConnectionRefusal;
      readonly numConnections: number;
    }
  /** Gradients that a shard cannot take yet, because groups before them are late. */
  | { readonly type: "pushes.waiting"; readonly shard: number; readonly numPushes: number }
  | {
      readonly type: "rpc.handled";
      readonly method: string;
      readonly code: string;
      readonly seconds: number;
    }
  | {
      readonly type: "run.completed";
      readonly outcome: "finished" | "interrupted";
      readonly step: number;
      readonly directory: string;
      readonly mastersSha256: string;
      readonly seconds: number;
      /** Why it ended before its last step, where evaluations asked for that. */
      readonly stoppedEarly?: string;
      /** Of the best evaluation, where its weights are the result; absent: the last ones are. */
      readonly bestStep?: number;
    }
  | { readonly type: "run.failed"; readonly code: string; readonly message: string }
  | ShardEvent
  | {
      /** A worker computed with other weights than it was sent: a group that was not sent, and maybe some before. */
      readonly type: "worker.corrupted";
      readonly workerId: string;
      readonly spaces: readonly ("trained" | "frozen")[];
      /** Updates made before. */
      readonly version: number;
      /** The same of its last check that found nothing; absent: there was none. */
      readonly intactVersion?: number;
    }
  | {
      /** A worker has become slow beside the others, or is so no longer. */
      readonly type: "worker.pace";
      readonly workerId: string;
      readonly isSlow: boolean;
      /** Of a gradient group, from its lease to its report: this worker's mean, and the median worker's. */
      readonly groupSeconds: number;
      readonly medianSeconds: number;
    }
  | {
      /** What a worker of this machine wrote into its log; of runs that publish their events. */
      readonly type: "log.lines";
      /** "worker-1". */
      readonly source: string;
      readonly lines: readonly string[];
      /** Before these, of which there were too many at once; the log has them. */
      readonly numSkippedBytes: number;
    }
  | {
      /** Of a run's stream: the server was away for so long that events before this one are not in it. */
      readonly type: "events.dropped";
      readonly numEvents: number;
      /** Of them, those that no later event replaces. */
      readonly numLasting: number;
      /** When they happened, milliseconds since 1970. */
      readonly fromMs: number;
      readonly toMs: number;
    };

/** Why a connection was closed. */
export type ConnectionRefusal =
  /** Too many at once had shown nothing yet: it was the oldest of the address that had most. */
  | "crowd"
  /** It showed nothing in time. */
  | "silence"
  /** As many connections as there may be are open. */
  | "full"
  /** The process has only as many descriptors left as saving needs. */
  | "descriptors";

export type RunPhase =
  | "preparing"
  | "waiting-for-workers"
  | "evaluating"
  | "generating"
  /** The Fisher information. */
  | "measuring"
  | "training"
  /** Somebody holds it between two steps. */
  | "paused"
  | "saving"
  | "done";
export type WorkerState = "compiling" | "idle" | "loading" | "computing" | "sending" | "lost";

/** Figures of an evaluation beside its loss, by the keys of the objective's metrics. */
export type Metrics = Readonly<Record<string, number>>;

/** What a run learns, for who shows it. */
export interface RunObjective {
  readonly kind: string;
  /** What losses are means over: "token". */
  readonly unit: string;
  readonly metrics: readonly {
    readonly key: string;
    readonly label: string;
    /** After the point. */
    readonly digits: number;
    /** Told of steps too, where a line has room for little. */
    readonly isOfSteps?: boolean;
  }[];
}

export interface RunStarted {
  readonly type: "run.started";
  readonly runName: string;
  readonly totalSteps: number;
  readonly globalBatchSize: number;
  readonly sequenceLength: number;
  readonly gradientGroups: number;
  readonly plannedWorkers: number;
  /** Of a cluster: fewer make no step. */
  readonly minWorkers?: number;
  /** Of a cluster: more wait. */
  readonly maxWorkers?: number;
  readonly numParameters: number;
  readonly numTrainRows: number;
  readonly numTrainTokens: number;
  readonly numValidationRows: number;
  readonly objective: RunObjective;
  /** Of a classifier; of a regression its outputs. */
  readonly numClasses?: number;
  /** The base model of the adapters that are trained, by the name that they are saved with. */
  readonly adapterBase?: string;
  /** What training drops, by kind; absent: nothing. */
  readonly dropout?: DropoutRates;
  /** What there is to learn, and what was cut or left out: lines for a person. */
  readonly dataLines?: readonly string[];
}

/** The run goes on from a checkpoint. What was before is thinned where it is long. */
export interface RunResumed {
  readonly type: "run.resumed";
  readonly directory: string;
  /** Steps made before. */
  readonly step: number;
  /** Tokens of the rows of these steps. */
  readonly numTokens: number;
  /** For which the run was open; unknown in checkpoints of earlier versions. */
  readonly seconds?: number;
  /** Of the entries of the history, the latest last: mean losses since the entry before. */
  readonly losses: readonly {
    readonly step: number;
    readonly loss: number;
    readonly gradientNorm: number;
  }[];
  readonly evaluations: readonly {
    readonly step: number;
    readonly loss: number;
    readonly metrics: Metrics;
    readonly trainLoss?: number;
  }[];
  /** Of general rows; absent: there are none. */
  readonly general?: readonly GeneralLoss[];
  readonly samples: readonly {
    readonly step: number;
    readonly prompt: string;
    readonly text: string;
    readonly isChat?: boolean;
  }[];
}

/** A task in a step. */
export interface TaskFigures {
  readonly name: string;
  readonly weight: number;
  /** Mean over its rows; absent: the step has none. */
  readonly loss?: number;
}

export interface StepCompleted {
  readonly type: "step.completed";
  /** Number of optimizer updates made so far, this one included. */
  readonly step: number;
  readonly totalSteps: number;
  readonly epoch: number;
  /** Mean over the step's global batch: per supervised token, nats, of a causal model. */
  readonly loss: number;
  /** Of a run with several tasks, whose losses are weighed and added. */
  readonly tasks?: readonly TaskFigures[];
  /** What the objective makes of the step's rows, by the keys of evaluations; absent: nothing. */
  readonly metrics?: Metrics;
  /** The rate that this step used. */
  readonly learningRate: number;
  /** Before clipping; not finite: the step made no update. */
  readonly gradientNorm: number;
  /** What the loss was multiplied by for backward, where float16 needs that. */
  readonly lossScale?: number;
  /** EWC's penalty of the weights before the step, which `loss` does not have in it. */
  readonly ewcPenalty?: number;
  readonly numRows: number;
  readonly numTokens: number;
  readonly stepSeconds: number;
  /** From the last group's arrival to the publication of the next version. */
  readonly syncSeconds: number;
  readonly tokensPerSecond: number;
}

export interface WorkerTelemetry {
  readonly type: "worker.telemetry";
  readonly workerId: string;
  readonly deviceType: "cpu" | "gpu";
  /** 0 to 1; for a CPU device the share of its threads that the process used. */
  readonly utilization: number;
  readonly memoryUsedBytes: number;
  readonly memoryTotalBytes: number;
  /** Seconds for which the device has been held by this worker. */
  readonly deviceSeconds: number;
}
