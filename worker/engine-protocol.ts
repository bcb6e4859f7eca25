import type { Batch } from "#lib/core/batch";
import type { Fingerprint } from "#lib/core/held-weights";
import type { EvaluatedBatch, WorkerJob } from "#lib/core/job";

/** What the I/O thread and the engine thread say to each other. */

export interface EngineThreadData {
  readonly engineModule: string;
  readonly job: WorkerJob;
  /** Of the buffer through which parameters come. */
  readonly parameterBytes: number;
  /** Each for the whole space in wire form: one is written while another is sent. */
  readonly gradients: readonly Uint8Array<SharedArrayBuffer>[];
}

export type EngineCall =
  | {
      readonly op: "loadFrozen" | "loadParameters";
      readonly piece: number;
      readonly wireBytes: Uint8Array<SharedArrayBuffer>;
      /** Whether the space will be compared with what the engine holds. */
      readonly isDigested: boolean;
    }
  | { readonly op: "fingerprint" }
  | {
      readonly op: "accumulate";
      readonly batch: Batch;
      readonly gradScale: number;
      readonly first: boolean;
      /** Whether the gradient of the batch's one row is squared. */
      readonly squares: boolean;
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

export type EngineValue = EvaluatedBatch | Int32Array | readonly Fingerprint[] | undefined;

/** Estimated peak memory of the process, bytes; undefined: unknown. */
export type EngineReady = number | undefined;
