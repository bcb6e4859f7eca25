import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { PauseGate } from "#coordinator/pause-gate";
import { explainWriteError } from "#lib/checkpoint/atomic-save";
import { claimFolder } from "#lib/checkpoint/claim-folder";
import { assertWritable } from "#lib/checkpoint/write-guard";
import type { StartedRun } from "./start.js";

/** In the claim's folder, while the run that its one line names is paused. */
const pausedFile = "paused";

/**
 * Lets a run that is paused stay so where its coordinator dies and another one comes: whether it is, is on the disk
 * before whoever asked for it has an answer.
 */
export async function keepPause(
  pause: PauseGate,
  { config, record: { runId } }: StartedRun,
  note: (text: string) => void,
): Promise<void> {
  const folder = join(config.output_dir, claimFolder);
  const file = join(folder, pausedFile);
  const left = await readFile(file, "utf8").catch(() => "");
  if (left.trim() === runId && config.nats_url !== null) {
    pause.begin();
    note(
      "the run was paused when the coordinator before this one ended: it stays so until it is told to resume",
    );
  } else if (left !== "") await forgetPause(config.output_dir);
  pause.keepWith(async (isPaused) => {
    if (!isPaused) return forgetPause(config.output_dir);
    try {
      assertWritable(file);
      await mkdir(folder, { recursive: true });
      await writeFile(file, `${runId}\n`, { flush: true });
    } catch (error) {
      throw explainWriteError(error, file);
    }
  });
}

/** Of a run that goes on, or ended in order. */
export async function forgetPause(outputDir: string): Promise<void> {
  const file = join(outputDir, claimFolder, pausedFile);
  assertWritable(file);
  await rm(file, { force: true });
}
