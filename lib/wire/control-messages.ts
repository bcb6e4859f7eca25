import type { Batch } from "#lib/core/batch";
import type { WorkerState } from "#lib/core/events";
import type { Fingerprint } from "#lib/core/held-weights";
import type { EvaluatedBatch } from "#lib/core/job";
import type { MemberPass } from "./member.js";

/** The messages of proto/lockstep/v1/control.proto as the two sides see them. */

export const protocolVersion = 8;

export interface RegisterRequest {
  readonly protocolVersion: number;
  readonly name: string;
  readonly host: string;
  readonly pid: number;
  readonly deviceKind: string;
  readonly deviceType: "cpu" | "gpu";
  /** What `bf16: auto` is on this device. */
  readonly advisesBf16: boolean;
  /** How many times the time of float32 products those of bfloat16 take here; 0: less, or unknown. */
  readonly bf16Slowdown: number;
  /** What `fp16: auto` is on this device, where bf16 is not chosen. */
  readonly advisesFp16: boolean;
  /** The same of float16 products. */
  readonly fp16Slowdown: number;
  /** Random, of this life of the worker's process. */
  readonly incarnation: string;
}

export interface RegisterReply {
  /** Empty where `retryAfterMs` is not 0. */
  readonly workerId: string;
  readonly jobJson: string;
  readonly shardAddresses: readonly string[];
  readonly heartbeatIntervalMs: number;
  /** The job is not known yet: register again after this time. 0: everything else holds. */
  readonly retryAfterMs: number;
  /** Why it is to register again, for a person; "": nothing is known yet. */
  readonly waitReason: string;
  readonly runId: string;
  /** The life of the run's coordinator. */
  readonly epoch: number;
  readonly memberSecret: string;
}

export interface NextTaskRequest {
  readonly workerId: string;
  readonly maxWaitMs: number;
  /** Leases whose results are still on their way: the worker keeps them. */
  readonly heldLeases: readonly number[];
}

export interface TrainTask {
  readonly kind: "train";
  readonly lease: number;
  readonly step: number;
  readonly group: number;
  readonly version: number;
  /** One a batch. */
  readonly gradScales: readonly number[];
  /** Whether the gradients of its batches, of one row each, are squared and then summed. @default false */
  readonly squares?: boolean;
  /** Whether the worker's weights are compared before the group is sent. */
  readonly isFingerprinted?: true;
  readonly batches: readonly Batch[];
}

export interface EvaluateTask {
  readonly kind: "evaluate";
  readonly lease: number;
  readonly version: number;
  readonly batches: readonly Batch[];
}

export interface GenerateTask {
  readonly kind: "generate";
  readonly lease: number;
  readonly version: number;
  readonly prompt: readonly number[];
  readonly maxNewTokens: number;
  readonly endTokenIds: readonly number[];
}

export type Task =
  | TrainTask
  | EvaluateTask
  | GenerateTask
  | { readonly kind: "wait" }
  | {
      readonly kind: "finished";
      readonly reason: string;
      /** The run was stopped or failed: a coordinator may come back and go on with it. */
      readonly interrupted: boolean;
    };

export type TaskResult =
  | { readonly kind: "losses"; readonly sums: readonly EvaluatedBatch[] }
  | { readonly kind: "tokens"; readonly ids: readonly number[] };

export interface CompleteTaskRequest {
  readonly workerId: string;
  readonly lease: number;
  readonly result: TaskResult;
}

export interface CompleteTaskReply {
  readonly stale: boolean;
}

/** What a worker computed a group with, before it sends it. */
export interface CheckWeightsRequest {
  readonly workerId: string;
  readonly lease: number;
  readonly version: number;
  /** Of each space; none where the worker's engine cannot tell. */
  readonly fingerprints: readonly Fingerprint[];
}

export interface CheckWeightsReply {
  /** False: the lease counts no longer, and the weights are to be loaded anew. */
  readonly isIntact: boolean;
}

export interface HeartbeatRequest {
  readonly workerId: string;
  readonly state: WorkerState;
  readonly utilization: number;
  readonly memoryUsedBytes: number;
  readonly memoryTotalBytes: number;
  readonly deviceSeconds: number;
}

export interface HeartbeatReply {
  /** Of the parameters that the next tasks are of. */
  readonly version: number;
}

export interface LeaveRequest {
  readonly workerId: string;
  readonly reason: string;
}

export interface ReportFailureRequest {
  readonly workerId: string;
  readonly lease: number;
  readonly code: string;
  readonly message: string;
  readonly fatal: boolean;
}

/** Where a registration comes from. */
export interface Knock {
  readonly peer: string;
  /** Whom the caller's certificate names; undefined without mutual TLS. */
  readonly certificate: string | undefined;
  /** Run of the registration before, which the worker may still be waiting for; "": there is none. */
  readonly formerRunId: string;
}

/** What the coordinator answers with. */
export interface ControlHandlers {
  /**
   * Called before each call but `register`, which is refused where this throws.
   * @param workerId whose the call says that it is
   * @throws E_STALE_RUN, E_UNKNOWN_WORKER, E_CERTIFICATE_MISMATCH
   */
  admit(pass: MemberPass, workerId: string): void;
  register(request: RegisterRequest, knock: Knock): Promise<RegisterReply>;
  nextTask(request: NextTaskRequest, signal: AbortSignal): Promise<Task>;
  completeTask(request: CompleteTaskRequest): Promise<CompleteTaskReply>;
  checkWeights(request: CheckWeightsRequest): Promise<CheckWeightsReply>;
  heartbeat(request: HeartbeatRequest): Promise<HeartbeatReply>;
  leave(request: LeaveRequest): Promise<void>;
  reportFailure(request: ReportFailureRequest): Promise<void>;
}
