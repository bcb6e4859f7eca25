import { type ErrorCode, isLockstepError } from "./index.js";

const codes: readonly string[] = [
  ...(["E_STALE_COORDINATOR", "E_OUTPUT_DIR_LOST"] as const),
  ...(["E_LEASE_LOST", "E_CHECKPOINT_STORE_LOST"] as const),
] satisfies ErrorCode[];

/** Whether another process has the run, and this one has nothing to do with it any more. */
export const isReplaced = (error: unknown): boolean =>
  isLockstepError(error) && codes.includes(error.code);
