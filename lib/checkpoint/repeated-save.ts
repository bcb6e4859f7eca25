import { awakeMs } from "#lib/core/awake-clock";
import { isLockstepError, type LockstepError } from "#lib/core/errors/index";
import type { LockstepEvent } from "#lib/core/events";

/** What the file system answers may be another thing in a while: a disk has room again, a mount is back. */
const passing: ReadonlySet<string> = new Set([
  "E_DISK_FULL",
  "E_CHECKPOINT_WRITE",
  "E_CHECKPOINT_STORE",
  "E_TOO_MANY_FILES",
]);
const firstPauseMs = 1_000;
const maxPauseMs = 30_000;
/** How long the end of a run tries to save what was trained, where nothing else is said. */
export const defaultSaveRetryMs = 3_600_000;

/** Whether the file system refused it, which may pass; anything else would fail again. */
export const isWriteFailure = (error: unknown): error is LockstepError =>
  isLockstepError(error) && passing.has(error.code);

export interface FailedSave {
  readonly error: LockstepError;
  readonly failures: number;
  /** Until the next attempt; null: there is none. */
  readonly retryInMs: number | null;
}

/**
 * Saves, and does so again while the file system refuses it; the first pause is 1 s, each later one twice as long, up
 * to 30 s.
 *
 * @param giveUpAtMs asked after each failure: `awakeMs()` from which on there is no further attempt
 * @throws what `save` throws where another attempt would fail too, or when it is given up
 */
export async function saveRepeatedly<T>(
  save: () => Promise<T>,
  hooks: {
    readonly giveUpAtMs: () => number;
    readonly pause: (ms: number) => Promise<unknown>;
    readonly onFailure: (failure: FailedSave) => void;
  },
): Promise<T> {
  for (let failures = 1; ; failures++) {
    try {
      return await save();
    } catch (error) {
      if (!isWriteFailure(error)) throw error;
      const leftMs = hooks.giveUpAtMs() - awakeMs();
      const pauseMs = Math.min(firstPauseMs * 2 ** (failures - 1), maxPauseMs, leftMs);
      const retryInMs = leftMs > 0 ? pauseMs : null;
      hooks.onFailure({ error, failures, retryInMs });
      if (retryInMs === null) throw error;
      await hooks.pause(retryInMs);
    }
  }
}

export const failedSaveEvent = (
  step: number,
  { error, retryInMs }: FailedSave,
): Extract<LockstepEvent, { readonly type: "checkpoint.failed" }> => ({
  type: "checkpoint.failed",
  ...{ step, code: error.code, message: error.message, retryInMs },
});

/**
 * What a person is told of a save that failed; undefined where that was told lately.
 *
 * @param meanwhile what becomes of the run: "training goes on"
 */
export function failedSaveLine(
  what: string,
  { error, failures, retryInMs }: FailedSave,
  meanwhile?: string,
): string | undefined {
  // A disk that stays full is told of again after twice as many attempts.
  const isPowerOfTwo = (failures & (failures - 1)) === 0;
  if (retryInMs !== null && !isPowerOfTwo) return undefined;
  const next =
    retryInMs === null
      ? "it is not tried again"
      : `it is tried again in ${Math.ceil(retryInMs / 1000)} s`;
  const rest = meanwhile === undefined ? "" : `, ${meanwhile}`;
  return `warning: ${what} was not saved: ${error.message} What was saved before is whole; ${next}${rest}`;
}
