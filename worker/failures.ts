import { type ErrorCode, isLockstepError } from "#lib/core/errors/index";
import { remoteErrorCode } from "#lib/wire/rpc-errors";
import { EngineFailure } from "./engine-client.js";
import { isUnreachable } from "./reachable.js";
import { isTransientRefusal } from "./transfers.js";

/** A shard did not take or give bytes; the coordinator lets the worker join anew. */
export const isTransferFailure = (error: unknown): boolean =>
  isUnreachable(error) ||
  (isLockstepError(error) &&
    (error.code === "E_TRANSFER_INCOMPLETE" || error.code === "E_FRAME_CORRUPT")) ||
  otherStateCodes.includes(remoteErrorCode(error)) ||
  isTransientRefusal(error);

/** The coordinator took the worker for dead, or is another one, or is none any more: the worker registers anew. */
export const isMembershipOver = (error: unknown): boolean =>
  ["E_UNKNOWN_WORKER", "E_STALE_RUN", "E_STALE_COORDINATOR"].includes(remoteErrorCode(error));

/** The run has ended, or was stopped. */
export const isRunOver = (error: unknown): boolean =>
  ["E_RUN_OVER", "E_RUN_STOPPED"].includes(remoteErrorCode(error));

/** A shard is gone, or begins anew, and the coordinator with it: the worker joins what comes after. */
const shardCodes: readonly string[] = [
  ...(["E_SHARD_LOST", "E_SHARD_FAILED", "E_SHARD_DIVERGED"] as const),
  ...(["E_SHARD_NOT_OPEN", "E_CLOSED"] as const),
] satisfies ErrorCode[];

export const isShardGone = (error: unknown): boolean => shardCodes.includes(remoteErrorCode(error));

/** What a shard does not have, or not yet, in whose place another one may have come. */
const otherStateCodes: readonly string[] = [
  ...(["E_VERSION_NOT_PUBLISHED", "E_PUSH_STEP"] as const),
] satisfies ErrorCode[];

/** The group went to another worker, or its step was begun anew. */
export const isLeaseLost = (error: unknown): boolean =>
  remoteErrorCode(error) === "E_LEASE_NOT_HELD";

export const isEngineError = (error: unknown): boolean =>
  error instanceof EngineFailure || (isLockstepError(error) && error.code === "E_ENGINE_CRASHED");

/** Errors of the catalogue that no repetition cures would meet every worker. */
export const isFatal = (error: unknown): boolean =>
  error instanceof EngineFailure && error.engineError.code !== "" && !error.engineError.retryable;
