import { setTimeout as delay } from "node:timers/promises";
import { awakeMs } from "#lib/core/awake-clock";
import { isLockstepError, LockstepError } from "#lib/core/errors/index";

/** The coordinator or a shard was away. */
export const isUnreachable = (error: unknown): error is LockstepError =>
  isLockstepError(error) && (error.code === "E_RPC_UNAVAILABLE" || error.code === "E_RPC_TIMEOUT");

export const firstBackoffMs = 100;
export const maxBackoffMs = 3_000;

/**
 * Repeats a call while the coordinator is away, for a limited time.
 *
 * @throws E_COORDINATOR_UNREACHABLE; what the call throws for another reason, or once `signal` is aborted
 */
export async function untilReachable<T>(
  call: () => Promise<T>,
  options: {
    readonly address: string;
    readonly timeoutMs: number;
    readonly signal: AbortSignal | undefined;
    readonly onRetry: ((error: unknown) => void) | undefined;
  },
): Promise<T> {
  const { address, timeoutMs, signal, onRetry } = options;
  const since = awakeMs();
  for (let backoffMs = firstBackoffMs; ; backoffMs = Math.min(backoffMs * 2, maxBackoffMs)) {
    try {
      return await call();
    } catch (error) {
      if (!isUnreachable(error) || signal?.aborted === true) throw error;
      const passedMs = awakeMs() - since;
      if (passedMs > timeoutMs) {
        throw new LockstepError(
          "E_COORDINATOR_UNREACHABLE",
          { address, seconds: Math.round(passedMs / 1000), reason: error.message },
          { cause: error },
        );
      }
      onRetry?.(error);
      await delay(backoffMs, undefined, { signal }).catch(() => {});
    }
  }
}

/** The answer to a call that was made before may hold a lease. */
const answerMs = 500;

/** Aborted soon after another signal: a call that is about to be answered still is. */
export function soonAfter(signal: AbortSignal | undefined): AbortSignal {
  const late = new AbortController();
  const abort = (): void => late.abort();
  if (signal?.aborted === true) abort();
  signal?.addEventListener("abort", () => setTimeout(abort, answerMs).unref());
  return late.signal;
}
