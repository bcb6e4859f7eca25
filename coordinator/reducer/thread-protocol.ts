import {
  type ErrorCode,
  type ErrorDetails,
  isLockstepError,
  LockstepError,
} from "#lib/core/errors/index";
import type { ShardArrays } from "#lib/core/shard-arrays";
import type { Update } from "#lib/optim/index";
import type { StartShardOptions } from "#coordinator/shards";

/** Messages between the coordinator's main thread and the thread of a shard. */

export interface ShardThreadOptions extends StartShardOptions {
  /** int32 [1]: the newest step that was opened, or -1. Written by the main thread only. */
  readonly openStep: Int32Array;
  /** int64 [2]: bytes of gradients received and of parameters sent. Written by the shard only. */
  readonly transferredBytes: BigInt64Array;
}

export const receivedBytesIndex = 0;
export const sentBytesIndex = 1;

export type ShardCommand =
  | { readonly kind: "publishInitial"; readonly version: number }
  | { readonly kind: "reduce"; readonly step: number }
  | { readonly kind: "apply"; readonly step: number; readonly update: Update }
  | { readonly kind: "discard"; readonly step: number }
  | { readonly kind: "snapshot"; readonly into: ShardArrays }
  | { readonly kind: "close" };

export interface ShardRequest {
  readonly id: number;
  readonly command: ShardCommand;
}

export type ShardMessage =
  | { readonly type: "ready"; readonly port: number; readonly arrays: ShardArrays }
  | { readonly type: "failed"; readonly error: PortableError }
  | { readonly type: "reply"; readonly id: number; readonly value: Float64Array | undefined }
  | { readonly type: "error"; readonly id: number; readonly error: PortableError }
  | {
      readonly type: "groupComplete";
      readonly step: number;
      readonly group: number;
      readonly workerId: string;
    }
  | {
      readonly type: "rpc";
      readonly method: string;
      readonly code: string;
      readonly seconds: number;
    };

/** An error as a message can hold it. */
type PortableError =
  | { readonly code: ErrorCode; readonly details: unknown }
  | { readonly reason: string };

export function toPortable(error: unknown): PortableError {
  if (isLockstepError(error)) return { code: error.code, details: error.details };
  return { reason: error instanceof Error ? (error.stack ?? error.message) : String(error) };
}

export function fromPortable(error: PortableError, shardIndex: number): LockstepError {
  if ("reason" in error) {
    return new LockstepError("E_SHARD_FAILED", { shardIndex, reason: error.reason });
  }
  return new LockstepError(error.code, error.details as ErrorDetails<ErrorCode>);
}
