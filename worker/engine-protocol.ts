import type { Batch } from "#lib/core/batch";
import type { EvaluatedBatch, WorkerJob } from "#lib/core/job";

/** What the I/O thread and the engine thread say to each other. */

export interface EngineThreadData {
  readonly engineModule: string;
  readonly job: WorkerJob;
  /** The whole parameter space in wire form. */
  readonly parameters: Uint8Array<SharedArrayBuffer>;
  /** Each of the same size: one is written while another is sent. */
  readonly gradients: readonly Uint8Array<SharedArrayBuffer>[];
}

export type EngineCall =
  | {
      readonly op: "loadFrozen";
      readonly piece: number;
      readonly wireBytes: Uint8Array<SharedArrayBuffer>;
    }
  | { readonly op: "loadParameters" }
  | {
      readonly op: "accumulate";
      readonly batch: Batch;
      readonly gradScale: number;
      readonly first: boolean;
      /** Where the group's gradient is to be written, if this is its last micro-batch. */
      readonly buffer: number | undefined;
    }
  | { readonly op: "evaluate"; readonly batch: Batch }
  | {
      readonly op: "generate";
      readonly prompt: Int32Array;
      readonly maxNewTokens: number;
      readonly endTokenIds: readonly number[];
    }
  | { readonly op: "close" };

/** A number is the estimated peak memory of the process, bytes. */
export type EngineValue = EvaluatedBatch | Int32Array | number | undefined;

export interface EngineError {
  readonly code: string;
  readonly message: string;
  readonly stack: string;
  /** Whether trying again could help: not for an error of the catalogue that says otherwise. */
  readonly retryable: boolean;
}

/** `id` 0 reports the engine's creation. */
export type EngineReply =
  | { readonly id: number; readonly value: EngineValue }
  | { readonly id: number; readonly error: EngineError };

export interface EngineRequest {
  readonly id: number;
  readonly call: EngineCall;
}
