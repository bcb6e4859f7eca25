import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { recoverInterruptedSaves, removeDirectoryAtomically } from "./atomic-save.js";

export interface CheckpointDirectory {
  readonly step: number;
  readonly directory: string;
}

export const checkpointName = (step: number): string => `checkpoint-${step}`;

/** The `checkpoint-N` directories of a run, by rising step; interrupted saves are cleaned up first. */
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
    if (match !== null && item.isDirectory()) {
      checkpoints.push({ step: Number(match[1]), directory: join(outputDir, item.name) });
    }
  }
  return checkpoints.sort((a, b) => a.step - b.step);
}

/**
 * Deletes the oldest checkpoints until `saveTotalLimit` are left (null or less than 1: no limit).
 * `keep`, the best checkpoint, is never deleted, nor is the newest, as in transformers: with a limit
 * of 1 and an older best, two stay. Returns what was deleted.
 */
export async function rotateCheckpoints(
  outputDir: string,
  saveTotalLimit: number | null,
  keep?: string,
): Promise<readonly CheckpointDirectory[]> {
  if (saveTotalLimit === null || saveTotalLimit < 1) return [];
  const checkpoints = await listCheckpoints(outputDir);
  const kept = keep === undefined ? undefined : join(keep);
  const newest = checkpoints.at(-1);
  const candidates = checkpoints.filter((c) => c !== newest && c.directory !== kept);
  const removed = candidates.slice(0, Math.max(0, checkpoints.length - saveTotalLimit));
  for (const { directory } of removed) await removeDirectoryAtomically(directory);
  return removed;
}
