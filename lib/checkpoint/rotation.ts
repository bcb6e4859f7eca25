import { existsSync, statSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { recoverInterruptedSaves, removeDirectoryAtomically } from "./atomic-save.js";
import { type CheckpointRecord, readCheckpointRecord } from "./run-record.js";

interface CheckpointDirectory {
  readonly step: number;
  readonly directory: string;
}

/** A checkpoint with what it says of the run that it belongs to. */
export interface OwnedCheckpoint extends CheckpointDirectory {
  /** Absent where another program saved it, or where it cannot be read. */
  readonly record: CheckpointRecord | undefined;
  /** Whether it has a folder that only Lockstep writes. */
  readonly isOurs: boolean;
}

export const checkpointName = (step: number): string => `checkpoint-${step}`;

/** The `checkpoint-N` directories in a directory, by rising step; interrupted saves are cleaned up first. */
export async function listCheckpoints(outputDir: string): Promise<readonly CheckpointDirectory[]> {
  try {
    await recoverInterruptedSaves(outputDir);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
  const checkpoints: CheckpointDirectory[] = [];
  for (const item of await readdir(outputDir, { withFileTypes: true })) {
    const match = /^checkpoint-(\d{1,15})$/.exec(item.name);
    if (match === null) continue;
    const directory = join(outputDir, item.name);
    // Large ones are moved to another disk, with a link in their place.
    const isLink = item.isSymbolicLink() && statSync(directory, { throwIfNoEntry: false });
    if (item.isDirectory() || (isLink && isLink.isDirectory())) {
      checkpoints.push({ step: Number(match[1]), directory });
    }
  }
  return checkpoints.sort((a, b) => a.step - b.step);
}

/**
 * The same with their runs, from the first saved to the last. Steps do not tell: a second run in the
 * directory begins at step 0 again. One whose record cannot be read comes last, so that it is looked at.
 */
export async function listOwnedCheckpoints(outputDir: string): Promise<readonly OwnedCheckpoint[]> {
  const checkpoints: OwnedCheckpoint[] = [];
  for (const { step, directory } of await listCheckpoints(outputDir)) {
    const record = await readCheckpointRecord(directory).catch(() => undefined);
    checkpoints.push({ step, directory, record, isOurs: existsSync(join(directory, "lockstep")) });
  }
  return checkpoints.sort(bySavedTime);
}

export function bySavedTime(a: OwnedCheckpoint, b: OwnedCheckpoint): number {
  const savedAt = ({ record }: OwnedCheckpoint): number => record?.savedAtMs ?? Infinity;
  const [before, after] = [savedAt(a), savedAt(b)];
  return before === after ? a.step - b.step : before - after;
}

/**
 * Deletes the first of some checkpoints until `saveTotalLimit` are left (null or less than 1: no limit).
 * `keep`, the best checkpoint, is never deleted, nor is the last, as in transformers: with a limit
 * of 1 and an older best, two stay. Returns what was deleted.
 *
 * @param checkpoints of one run, from the first saved to the last
 */
export async function rotateCheckpoints<Checkpoint extends CheckpointDirectory>(
  checkpoints: readonly Checkpoint[],
  saveTotalLimit: number | null,
  keep?: string,
  remove = removeDirectoryAtomically,
): Promise<readonly Checkpoint[]> {
  if (saveTotalLimit === null || saveTotalLimit < 1) return [];
  const newest = checkpoints.at(-1);
  const candidates = checkpoints.filter((c) => c !== newest && c.directory !== keep);
  const removed = candidates.slice(0, Math.max(0, checkpoints.length - saveTotalLimit));
  for (const { directory } of removed) await remove(directory);
  return removed;
}
