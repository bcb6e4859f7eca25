import type { WorkerState } from "#lib/core/events";
import type { PrecisionAdvice } from "#lib/core/processor";
import type { WireSecurity } from "#lib/wire/security";

/** Where in its loop a worker is; hooks of tests and the observer's states follow it. */
export type WorkerPhase =
  | { readonly phase: "asking" }
  | { readonly phase: "leased"; readonly step: number; readonly group: number }
  | { readonly phase: "computed"; readonly step: number; readonly group: number }
  | {
      readonly phase: "pushing";
      readonly step: number;
      readonly group: number;
      readonly shard: number;
      readonly sentBytes: number;
    }
  | { readonly phase: "pushed"; readonly step: number; readonly group: number }
  | {
      readonly phase: "completed";
      readonly step: number;
      readonly group: number;
      readonly stale: boolean;
    };

/** What a worker does, for its own metrics and log. */
export interface WorkerObserver {
  /** @param address host:port of the coordinator */
  registered?(workerId: string, address: string): void;
  /** @param plannedBytes estimated peak memory of this process; undefined: unknown */
  engineCreated?(plannedBytes: number | undefined): void;
  stateChanged?(state: WorkerState): void;
  microBatchComputed?(facts: { readonly numTokens: number; readonly seconds: number }): void;
  groupCompleted?(facts: {
    readonly step: number;
    readonly group: number;
    readonly seconds: number;
    readonly stale: boolean;
  }): void;
  bytesTransferred?(direction: "gradients" | "parameters", bytes: number): void;
  parametersLoaded?(version: number): void;
  /** A line for a person. */
  told?(line: string): void;
  /** Something went wrong and is tried again. */
  retrying?(error: unknown): void;
  /** The run was stopped; its return is waited for. */
  awaitingReturn?(timeoutMs: number): void;
}

export interface DeviceReading {
  /** 0 to 1. */
  readonly utilization: number;
  readonly memoryUsedBytes: number;
  readonly memoryTotalBytes: number;
}

export interface WorkerOptions {
  /** host:port of the coordinator's control service. */
  readonly coordinatorAddress: string;
  /** host:port of those that may take its place. @default none */
  readonly standbyAddresses?: readonly string[];
  readonly security?: WireSecurity;
  /** Of this life of the process, and of no other one. @default random */
  readonly incarnation?: string;
  /** Name to be shown under; the coordinator makes it unique. */
  readonly name?: string;
  /** Everything that decides the bits of a result. @default that of this machine's processor */
  readonly deviceKind?: string;
  readonly deviceType?: "cpu" | "gpu";
  /** What the device says of half types. @default that of this machine's processor, nothing measured */
  readonly advice?: PrecisionAdvice;
  /** URL of a module whose default export is a CreateTrainingEngine. @default lib/tuning's engine */
  readonly engineModule?: string;
  /** Reads the device; called with every heartbeat. @default this process on the processor */
  readonly readDevice?: () => DeviceReading;
  /** How long the coordinator may be away before the worker gives up. @default 60000 */
  readonly reconnectTimeoutMs?: number;
  /** How long a run that was stopped may take to come back at its address; 0: nobody waits. @default 0 */
  readonly returnTimeoutMs?: number;
  readonly observer?: WorkerObserver;
  /** Called at each point of the loop, and waited for. */
  readonly onPhase?: (phase: WorkerPhase) => void | Promise<void>;
  /** Aborting it makes the worker leave; its leases go to others. */
  readonly signal?: AbortSignal;
  /** Aborting it makes the worker finish the group that it computes, send it, and leave. */
  readonly drain?: AbortSignal;
  /**
   * Within which it has left then: a group that takes longer is given back, at once where that can be told.
   * @default as long as the group takes
   */
  readonly drainGraceMs?: number;
}

export interface WorkerOutcome {
  /**
   * `finished`: the job is over; `interrupted`: its coordinator stopped and did not come back in time; `left`: a
   * signal was aborted.
   */
  readonly outcome: "finished" | "interrupted" | "left";
  readonly numGroups: number;
}
