import grpc from "@grpc/grpc-js";
import {
  type ErrorCode,
  type ErrorDetails,
  errorCatalogue,
  isLockstepError,
  LockstepError,
} from "#lib/core/errors/index";
import { maxReasonChars } from "./limits.js";

/** gRPC status of an error of the catalogue; whatever is not listed is INTERNAL. */
const statusOfCode: Partial<Record<ErrorCode, grpc.status>> = {
  E_JOIN_TOKEN: grpc.status.UNAUTHENTICATED,
  E_FRAME_CORRUPT: grpc.status.DATA_LOSS,
  E_FRAME_INVALID: grpc.status.INVALID_ARGUMENT,
  E_MESSAGE_INVALID: grpc.status.INVALID_ARGUMENT,
  E_TRANSFER_INCOMPLETE: grpc.status.DATA_LOSS,
  E_VERSION_NOT_PUBLISHED: grpc.status.FAILED_PRECONDITION,
  E_DEVICE_KIND_MISMATCH: grpc.status.FAILED_PRECONDITION,
  E_PROTOCOL_VERSION: grpc.status.FAILED_PRECONDITION,
  E_UNKNOWN_WORKER: grpc.status.NOT_FOUND,
  E_STALE_RUN: grpc.status.FAILED_PRECONDITION,
  E_STALE_COORDINATOR: grpc.status.FAILED_PRECONDITION,
  E_CERTIFICATE_MISMATCH: grpc.status.PERMISSION_DENIED,
  E_WORKER_QUARANTINED: grpc.status.PERMISSION_DENIED,
  E_LEASE_NOT_HELD: grpc.status.FAILED_PRECONDITION,
  E_TOKEN_COUNT: grpc.status.INVALID_ARGUMENT,
  E_RUN_STOPPED: grpc.status.FAILED_PRECONDITION,
  E_RUN_OVER: grpc.status.FAILED_PRECONDITION,
  E_OTHER_RUN: grpc.status.FAILED_PRECONDITION,
  E_RPC_UNAVAILABLE: grpc.status.CANCELLED,
  E_TOO_MANY_WORKERS: grpc.status.RESOURCE_EXHAUSTED,
  E_SHARD_STATE: grpc.status.FAILED_PRECONDITION,
  E_SHARD_NOT_OPEN: grpc.status.FAILED_PRECONDITION,
  E_CHECKPOINT_DAMAGED: grpc.status.FAILED_PRECONDITION,
  E_REDUCER_FILES: grpc.status.FAILED_PRECONDITION,
  E_SHARD_BUSY: grpc.status.RESOURCE_EXHAUSTED,
  E_PUSH_GROUP: grpc.status.INVALID_ARGUMENT,
  E_PUSH_STEP: grpc.status.FAILED_PRECONDITION,
  E_PUSH_CHUNK: grpc.status.INVALID_ARGUMENT,
  E_PUSH_INCOMPLETE: grpc.status.DATA_LOSS,
};

const codeKey = "lockstep-error-code";
/** JSON of what the error's message is made of, percent-encoded. */
const detailsKey = "lockstep-error-details";
/** Longest such entry, characters; HTTP/2 headers are limited. */
const maxDetailsChars = 4_000;

export function toStatus(error: unknown): grpc.StatusObject & { name: string; message: string } {
  const metadata = new grpc.Metadata();
  const reason = (error instanceof Error ? error.message : String(error)).slice(0, maxReasonChars);
  let code: grpc.status = grpc.status.INTERNAL;
  if (isLockstepError(error)) {
    metadata.set(codeKey, error.code);
    const details = encodeURIComponent(JSON.stringify(error.details ?? {}));
    if (details.length <= maxDetailsChars) metadata.set(detailsKey, details);
    code = statusOfCode[error.code] ?? grpc.status.INTERNAL;
  }
  return { name: "RpcError", message: reason, code, details: reason, metadata };
}

/** What a client's call failed with, as an error of the catalogue. */
export function fromServiceError(
  error: unknown,
  call: { readonly method: string; readonly address: string; readonly timeoutMs: number },
): LockstepError {
  if (isLockstepError(error)) return error;
  const { method, address, timeoutMs } = call;
  if (!isServiceError(error)) {
    return new LockstepError(
      "E_RPC_FAILED",
      { method, address, status: "", remoteCode: "", reason: String(error) },
      { cause: error },
    );
  }
  if (error.code === grpc.status.DEADLINE_EXCEEDED) {
    return new LockstepError("E_RPC_TIMEOUT", { method, address, timeoutMs }, { cause: error });
  }
  const remoteCode = String(error.metadata?.get(codeKey)[0] ?? "");
  const transport =
    error.code === grpc.status.UNAVAILABLE ||
    error.code === grpc.status.CANCELLED ||
    (error.code === grpc.status.INTERNAL && remoteCode === "");
  if (transport) {
    return new LockstepError(
      "E_RPC_UNAVAILABLE",
      { method, address, reason: error.details },
      { cause: error },
    );
  }
  return new LockstepError(
    "E_RPC_FAILED",
    {
      method,
      address,
      status: grpc.status[error.code] ?? String(error.code),
      remoteCode,
      reason: error.details,
    },
    { cause: error },
  );
}

/** The catalogue code that the other side gave, or "". */
export function remoteErrorCode(error: unknown): string {
  return isLockstepError(error) && error.code === "E_RPC_FAILED"
    ? (error as LockstepError<"E_RPC_FAILED">).details.remoteCode
    : "";
}

/** The other side's error itself, where it is of the catalogue. @param error of a call, or what it was made of */
export function remoteError(error: unknown): LockstepError | undefined {
  const thrown = isLockstepError(error) ? error.cause : error;
  if (!isServiceError(thrown)) return undefined;
  const code = String(thrown.metadata?.get(codeKey)[0] ?? "");
  const details = String(thrown.metadata?.get(detailsKey)[0] ?? "");
  if (!isErrorCode(code) || details === "") return undefined;
  try {
    const parsed: unknown = JSON.parse(decodeURIComponent(details));
    return new LockstepError(code, parsed as ErrorDetails<ErrorCode>, { cause: thrown });
  } catch {
    return undefined;
  }
}

const isErrorCode = (code: string): code is ErrorCode => Object.hasOwn(errorCatalogue, code);

function isServiceError(error: unknown): error is grpc.ServiceError {
  return error instanceof Error && typeof (error as Partial<grpc.ServiceError>).code === "number";
}
