import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { type JournalOwner, readRunJournal } from "#coordinator/run-journal";
import type { RecoveredRun } from "#coordinator/run-state";
import { claimFolder } from "#lib/checkpoint/claim-folder";
import { assertWritable } from "#lib/checkpoint/write-guard";
import type { ResolvedConfig, SettledBefore } from "#lib/config/index";
import type { HalfTypes } from "#lib/core/dtype";
import { type OutputContents, runConfigFile } from "./output-contents.js";
import { halfTypesOf, readSettings, takesNewest } from "./resume.js";

/** What a coordinator that died has left of its run, beside what its shards hold. */
export interface LeftRun extends JournalOwner, RecoveredRun {
  /** The configuration that it resolved to. */
  readonly settings: SettledBefore;
  readonly halfTypes: HalfTypes;
}

const namePattern = /^journal-(\d{1,15})\.bin(\.new)?$/;

/**
 * The journal of the process that claimed the directory under this number: one that lost the directory does not write
 * where its successor does.
 */
export const journalPath = (outputDir: string, claimEpoch: number): string =>
  join(outputDir, claimFolder, `journal-${claimEpoch}.bin`);

/** Removes the journals of an output directory. @param kept stays */
export function removeJournals(outputDir: string, kept?: string): void {
  for (const name of namesIn(outputDir)) {
    const path = join(outputDir, claimFolder, name);
    if (path === kept) continue;
    assertWritable(path);
    rmSync(path, { force: true });
  }
}

/**
 * The run of a coordinator that died, where a start of `config` goes on with it: its journal is there, of the run that
 * began last in the directory and is not finished, and nothing else is asked for.
 *
 * @param isRestart whether this start is another one of that coordinator, whatever it was asked for
 * @throws E_JOURNAL_DAMAGED, E_JSON_FILE
 */
export async function findLeftRun(
  config: ResolvedConfig,
  { directory, record, finished }: OutputContents,
  isRestart: boolean,
): Promise<LeftRun | undefined> {
  const { overwrite_output_dir: isReplaced, resume_from_checkpoint: wanted } = config;
  const asksForAnother = isReplaced || (typeof wanted === "string" && !takesNewest(config));
  if (record === undefined || finished !== null) return undefined;
  if (asksForAnother && !isRestart) return undefined;
  const epochs = namesIn(directory)
    .map((name) => namePattern.exec(name))
    .flatMap((match) => (match === null || match[2] !== undefined ? [] : [Number(match[1])]));
  for (const epoch of epochs.sort((one, other) => other - one)) {
    const left = await readRunJournal(journalPath(directory, epoch));
    if (left === undefined) continue;
    if (left.runId !== record.runId) return undefined;
    const settings = await readSettings(join(directory, runConfigFile));
    return { ...left, settings, halfTypes: halfTypesOf(settings) };
  }
  return undefined;
}

function namesIn(outputDir: string): readonly string[] {
  try {
    return readdirSync(join(outputDir, claimFolder)).filter((name) => namePattern.test(name));
  } catch {
    return [];
  }
}
