import { setTimeout as delay } from "node:timers/promises";
import { LockstepError } from "#lib/core/errors/index";
import { isUnreachable } from "./failures.js";

export const firstBackoffMs = 100;
const maxBackoffMs = 3_000;

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
  const since = performance.now();
  for (let backoffMs = firstBackoffMs; ; backoffMs = Math.min(backoffMs * 2, maxBackoffMs)) {
    try {
      return await call();
    } catch (error) {
      if (!isUnreachable(error) || signal?.aborted === true) throw error;
      const passedMs = performance.now() - since;
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

/** Aborted some time after another signal: what is about to be answered still may be. */
export function abortedAfter(signal: AbortSignal | undefined, delayMs: number): AbortSignal {
  const late = new AbortController();
  const abort = (): void => late.abort();
  if (signal?.aborted === true) abort();
  signal?.addEventListener("abort", () => setTimeout(abort, delayMs).unref());
  return late.signal;
}
