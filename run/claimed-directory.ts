import { existsSync, readdirSync, rmSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { recoverInterruptedSaves, removeUnfinishedSaves } from "#lib/checkpoint/atomic-save";
import { claimFolder, isUnused } from "#lib/checkpoint/claim-folder";
import { LockstepError } from "#lib/core/errors/index";
import { claimOutputDirectory } from "./output-directory.js";

interface ClaimedDirectoryOptions {
  /** Whether a directory that holds something else may be written into. */
  readonly overwrite: boolean;
  /** Gets a line where another process has to be waited for. */
  readonly onWaiting: (text: string) => void;
}

/**
 * Does something with a directory that this process claims for it, as a run claims its output_dir; what
 * interrupted saves left in there is removed first. Where the action fails, or the process exits amid it, what is
 * half written goes, and with it a directory that is new.
 *
 * @throws E_DIRECTORY_NOT_EMPTY, and what claimOutputDirectory and the action throw
 */
export async function inClaimedDirectory<T>(
  directory: string,
  action: () => Promise<T>,
  { overwrite, onWaiting }: ClaimedDirectoryOptions,
): Promise<T> {
  const checkUnused = async (): Promise<void> => {
    if (overwrite || (await isUnused(directory))) return;
    throw new LockstepError("E_DIRECTORY_NOT_EMPTY", { directory });
  };
  const isNew = !existsSync(directory);
  // A directory of somebody's own gets no claim.
  if (!isNew && !existsSync(join(directory, claimFolder))) await checkUnused();
  const claim = await claimOutputDirectory(directory, { onWaiting });
  const abandon = (): void => {
    removeUnfinishedSaves();
    if (isNew) removeClaimed(directory);
  };
  process.once("exit", abandon);
  try {
    await recoverInterruptedSaves(directory);
    await checkUnused();
    return await action();
  } finally {
    process.off("exit", abandon);
    await claim.release();
    if (isNew && (await isUnused(directory))) await rm(directory, { recursive: true, force: true });
  }
}

/** Removes a directory that holds a claim at most, without waiting. */
function removeClaimed(directory: string): void {
  try {
    if (readdirSync(directory).some((name) => name !== claimFolder)) return;
    rmSync(directory, { recursive: true, force: true });
  } catch {
    // It holds nothing but a claim, and is as good as a new one.
  }
}
