import { existsSync, realpathSync, statSync } from "node:fs";
import { readdir, rm, rmdir } from "node:fs/promises";
import { basename, dirname, join, relative } from "node:path";
import {
  type OutputRecord,
  outputRecordFile,
  type OwnedCheckpoint,
  readOutputRecord,
  sizesOf,
  type RunIdentity,
} from "#lib/checkpoint/index";
import type { ResolvedConfig } from "#lib/config/index";
import { tasksFolder } from "#lib/core/task-heads";
import { LockstepError } from "#lib/core/errors/index";
import { isWeights } from "#lib/hub/wanted-files";
import { checkpointPlace } from "./checkpoint-place.js";
import { logDirectoryOf } from "./supervisor.js";
import { trainerLogFileName } from "./trainer-log.js";

/** What runs left in an output directory. */
export interface OutputContents {
  readonly directory: string;
  /** Where its checkpoints are: there, or in a store. */
  readonly place: string;
  /** The run that started there last. */
  readonly record: OutputRecord | undefined;
  /** Why the record that is there cannot be read. */
  readonly recordProblem: string | undefined;
  /** From the first saved to the last. */
  readonly checkpoints: readonly OwnedCheckpoint[];
  /** Files of a model or an adapter beside them. */
  readonly modelFiles: readonly string[];
  /** What the record tells of a result, where its files are still there and whole. */
  readonly finished: OutputRecord["finished"];
}

/** Written by every run, beside its results. */
export const runConfigFile = "lockstep.yaml";
export const metricsTargetsFile = "prometheus-workers.json";
/** The weights' moving average, a model or an adapter like the one beside it; where `ema_decay` asks for one. */
export const emaFolder = "ema";

export async function readOutput(config: ResolvedConfig): Promise<OutputContents> {
  const directory = config.output_dir;
  const checkpoints = await (await checkpointPlace(config)).list();
  let record: OutputRecord | undefined;
  let recordProblem: string | undefined;
  try {
    record = await readOutputRecord(directory);
  } catch (error) {
    recordProblem = error instanceof Error ? error.message : String(error);
  }
  const names = existsSync(directory) ? await readdir(directory) : [];
  const modelFiles = names.filter(
    (name) => isWeights(name) || ["config.json", "adapter_config.json"].includes(name),
  );
  return {
    place: config.checkpoint_store ?? directory,
    ...{ directory, record, recordProblem, checkpoints, modelFiles: modelFiles.sort() },
    finished: await wholeResult(directory, record?.finished ?? null),
  };
}

/** A result none of whose files was lost or cut off. */
async function wholeResult(
  directory: string,
  finished: OutputRecord["finished"],
): Promise<OutputRecord["finished"]> {
  if (finished === null) return null;
  const expected = Object.entries(finished.fileBytes);
  const sizes = await sizesOf(
    directory,
    expected.map(([name]) => name),
  );
  return expected.every(([name, bytes]) => sizes[name] === bytes) ? finished : null;
}

/**
 * What in a directory is not this run's, in words; empty where everything is.
 *
 * @param differences what makes a run another one than this
 */
export function otherRuns(
  { record, recordProblem, checkpoints, modelFiles }: OutputContents,
  differences: (before: RunIdentity) => readonly string[],
): string[] {
  const found: string[] = [];
  const ofOthers = new Map<string, string[]>();
  const isOwn = (before: RunIdentity, what: string): boolean => {
    const different = differences(before).join(", ");
    if (different !== "") ofOthers.set(different, [...(ofOthers.get(different) ?? []), what]);
    return different === "";
  };
  let hasOwn = false;
  if (record !== undefined) {
    const hasResult = record.finished !== null || record.files.length > 0;
    hasOwn = hasResult
      ? isOwn(record.identity, "the result")
      : differences(record.identity).length === 0;
  }
  const unknown: OwnedCheckpoint[] = [];
  for (const checkpoint of checkpoints) {
    const { directory, record: saved } = checkpoint;
    if (saved === undefined) unknown.push(checkpoint);
    else if (isOwn(saved.identity, basename(directory))) hasOwn = true;
  }
  for (const [different, things] of ofOthers) found.push(`${listed(things)}: ${different}`);
  if (recordProblem !== undefined && !hasOwn) {
    found.push(`${outputRecordFile} does not tell whose it is (${recordProblem})`);
  } else if (record === undefined && modelFiles.length > 0 && !hasOwn) {
    found.push(`${listed(modelFiles)} of a model that no run of Lockstep left there`);
  }
  // Beside what this run left it is a damaged one of its own.
  const strange = unknown.filter(({ isOurs }) => !(isOurs && hasOwn));
  if (strange.length > 0) {
    const names = strange.map(({ directory }) => basename(directory));
    found.push(`${listed(names)}, of which no record tells by which run they were saved`);
  }
  return found;
}

/** Names what is there of an earlier run of the same job; undefined where there is nothing. */
export function describeOwn(output: OutputContents): string | undefined {
  const { record, checkpoints, modelFiles } = output;
  const things = checkpoints.map(({ directory }) => basename(directory));
  if (record !== undefined && modelFiles.length > 0) {
    things.push("a result");
  }
  return things.length === 0 ? undefined : listed(things);
}

/**
 * The average of the weights takes no place of files that no run left, whatever is overwritten.
 *
 * @param differences what makes a run another one than this
 * @throws E_CONFIG_CONFLICT
 */
export async function refuseOthersAverage(
  { directory, record }: OutputContents,
  differences: (before: RunIdentity) => readonly string[],
): Promise<void> {
  // A save of this run that was cut off left files that its record does not tell of.
  if (record !== undefined && differences(record.identity).length === 0) return;
  const path = join(directory, emaFolder);
  if (!existsSync(path)) return;
  const names = statSync(path).isDirectory() ? await readdir(path) : [""];
  const files = names.map((name) => `${emaFolder}/${name}`);
  const others = files.filter((name) => record?.files.includes(name) !== true);
  if (others.length === 0) return;
  throw new LockstepError("E_CONFIG_CONFLICT", {
    keys: "ema_decay and output_dir",
    reason: `no run of Lockstep left ${listed(others)} in ${directory}, where the average of the weights is to be: move it away`,
  });
}

/**
 * Removes what runs of Lockstep wrote into a directory: their checkpoints, results, records and logs.
 * Other files stay.
 *
 * @param isKept whether what a run left is needed: what a run goes on from
 * @returns names of what was removed
 * @throws E_CONFIG_CONFLICT where the model that is to be trained is among it
 */
export async function removeRuns(
  output: OutputContents,
  modelDirectory: string,
  isKept: (identity: RunIdentity) => boolean,
  config: ResolvedConfig,
): Promise<string[]> {
  const { directory, record } = output;
  const removed = output.checkpoints
    .filter(
      ({ isOurs, record: saved }) => isOurs && !(saved !== undefined && isKept(saved.identity)),
    )
    .map((checkpoint) => checkpoint.directory);
  const folders = [emaFolder, tasksFolder].map((name) => join(directory, name));
  const taken = [...removed, ...folders];
  if (isSame(directory, modelDirectory) || taken.some((path) => isWithin(modelDirectory, path))) {
    throw new LockstepError("E_CONFIG_CONFLICT", {
      keys: "overwrite_output_dir and model_name_or_path",
      reason: `the model ${modelDirectory} is among what would be removed or replaced`,
    });
  }
  const place = await checkpointPlace(config);
  for (const checkpoint of removed) await place.remove(checkpoint);
  const names = removed.map((checkpoint) => basename(checkpoint));
  // Without a record nothing tells that a file of such a name is a run's.
  if (record === undefined || isKept(record.identity)) return names;
  // Somebody may have changed the record: it names files of this directory and of its folders of models only.
  const ofModels = new RegExp(`^(${emaFolder}/)?(${tasksFolder}/[A-Za-z][\\w-]*/)?[^/]+$`);
  const results = record.files.filter((name) => ofModels.test(name) && basename(name) !== "..");
  const files = [...results, runConfigFile, trainerLogFileName, metricsTargetsFile];
  files.push(outputRecordFile);
  const logs = logDirectoryOf(directory);
  const logNames = existsSync(logs) ? await readdir(logs) : [];
  files.push(
    ...logNames.filter((name) => /^worker-\d+\.log$/.test(name)).map((name) => `logs/${name}`),
  );
  for (const name of new Set(files)) {
    const file = join(directory, name);
    if (!existsSync(file) || statSync(file).isDirectory()) continue;
    await rm(file);
    names.push(name);
  }
  // Where something else is in them, they stay.
  await rmdir(logs).catch(() => {});
  const inner = record.files.map((name) => dirname(name)).filter((name) => name !== ".");
  const emptied = [...inner, `${emaFolder}/${tasksFolder}`, tasksFolder, emaFolder];
  for (const folder of new Set(emptied)) {
    const path = join(directory, folder);
    if (isWithin(path, directory)) await rmdir(path).catch(() => {});
  }
  return names;
}

/** At most ten names. */
export function listed(names: readonly string[]): string {
  const shown = names.slice(0, 10).join(", ");
  return names.length > 10 ? `${shown} and ${names.length - 10} more` : shown;
}

function real(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}

const isSame = (a: string, b: string): boolean => real(a) === real(b);

const isWithin = (path: string, directory: string): boolean =>
  !relative(real(directory), real(path)).startsWith("..");
