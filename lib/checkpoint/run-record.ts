import { randomBytes } from "node:crypto";
import { stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { isLockstepError, LockstepError } from "#lib/core/errors/index";
import { isRecord, readJsonFile } from "./file-reader.js";
import { maxConfigBytes } from "./limits.js";
import type { RunIdentity } from "./run-identity.js";

/** In a checkpoint, relative to it. */
export const checkpointRecordFile = "lockstep/run.json";
/** In an output directory: the run that started there last. */
export const outputRecordFile = "lockstep-run.json";

const format = "lockstep-run-1";

/** To which run a checkpoint or an output directory belongs. */
export interface RunRecord {
  /** Random, of every run that starts anew; kept when it goes on. */
  readonly runId: string;
  /** ISO 8601, UTC. */
  readonly startedAt: string;
  /** Kind of the device that computed first; null before there was one. */
  readonly deviceKind: string | null;
  readonly identity: RunIdentity;
  /** Settings of its beginning that may change and that others are worked out from, by key. */
  readonly began: Readonly<Record<string, unknown>>;
}

/** Of a checkpoint. */
export interface CheckpointRecord extends RunRecord {
  /** Milliseconds since 1970; rises from save to save, whatever the clock does. */
  readonly savedAtMs: number;
}

/** Of an output directory. */
export interface OutputRecord extends RunRecord {
  /** The result that is there; null while there is none of this run. */
  readonly finished: {
    readonly step: number;
    readonly totalSteps: number;
    /** Of the trained weights in float32; absent in records of before. */
    readonly mastersSha256?: string;
    /** Where evaluations ended the run before its last step: how many in a row were no better. */
    readonly earlyStopping?: { readonly counter: number };
    /** Sizes of its files, by name. */
    readonly fileBytes: Readonly<Record<string, number>>;
    /** What they were made by, by key. */
    readonly settings: Readonly<Record<string, unknown>>;
  } | null;
  /** Names of the files of results that runs wrote beside their checkpoints. */
  readonly files: readonly string[];
}

export function newRunRecord(identity: RunIdentity, began: RunRecord["began"] = {}): RunRecord {
  const runId = randomBytes(8).toString("hex");
  return { runId, startedAt: new Date().toISOString(), deviceKind: null, identity, began };
}

export async function writeCheckpointRecord(
  directory: string,
  record: CheckpointRecord,
): Promise<void> {
  await write(join(directory, checkpointRecordFile), record);
}

/** Into a directory whose files are put in place by the caller. */
export async function writeOutputRecord(directory: string, record: OutputRecord): Promise<void> {
  await write(join(directory, outputRecordFile), record);
}

const write = (file: string, record: object): Promise<void> =>
  writeFile(file, `${JSON.stringify({ format, ...record }, null, 2)}\n`);

/** @returns undefined where there is none. @throws E_JSON_FILE */
export async function readCheckpointRecord(
  directory: string,
): Promise<CheckpointRecord | undefined> {
  const file = join(directory, checkpointRecordFile);
  const parsed = await read(file);
  if (parsed === undefined) return undefined;
  const { savedAtMs } = parsed;
  if (!Number.isSafeInteger(savedAtMs)) throw notARecord(file, "savedAtMs");
  return parsed as unknown as CheckpointRecord;
}

/** @returns undefined where there is none. @throws E_JSON_FILE */
export async function readOutputRecord(directory: string): Promise<OutputRecord | undefined> {
  const file = join(directory, outputRecordFile);
  const parsed = await read(file);
  if (parsed === undefined) return undefined;
  const { finished, files } = parsed;
  const isStopped = (value: unknown): boolean =>
    value === undefined || (isRecord(value) && Number.isSafeInteger(value["counter"]));
  const isFinished =
    isRecord(finished) &&
    isStopped(finished["earlyStopping"]) &&
    ["string", "undefined"].includes(typeof finished["mastersSha256"]) &&
    Number.isSafeInteger(finished["step"]) &&
    isRecord(finished["fileBytes"]) &&
    isRecord(finished["settings"]);
  if (finished !== null && !isFinished) throw notARecord(file, "finished");
  if (!Array.isArray(files) || !files.every((name) => typeof name === "string")) {
    throw notARecord(file, "files");
  }
  return parsed as unknown as OutputRecord;
}

async function read(file: string): Promise<Record<string, unknown> | undefined> {
  const parsed = await readJsonFile(file, "record of a run", maxConfigBytes).catch(
    (error: unknown) => {
      if (isLockstepError(error) && error.code === "E_FILE_NOT_FOUND") return undefined;
      throw error;
    },
  );
  if (parsed === undefined) return undefined;
  if (!isRecord(parsed) || parsed["format"] !== format) throw notARecord(file, "format");
  const { runId, startedAt, deviceKind, identity, began } = parsed;
  if (typeof runId !== "string" || !/^[0-9a-f]{16}$/.test(runId)) throw notARecord(file, "runId");
  if (typeof startedAt !== "string") throw notARecord(file, "startedAt");
  if (deviceKind !== null && typeof deviceKind !== "string") throw notARecord(file, "deviceKind");
  if (!isIdentity(identity)) throw notARecord(file, "identity");
  if (!isRecord(began)) throw notARecord(file, "began");
  const settings = { ...unsaidSettings, ...identity.settings };
  return { ...parsed, identity: { ...identity, settings } };
}

/** What it means that a record of an earlier version does not say it. */
const unsaidSettings: Readonly<Record<string, unknown>> = { optim: "adamw", optim_args: null };

function isIdentity(value: unknown): value is RunIdentity {
  if (!isRecord(value)) return false;
  const { settings, data, dataSettings, base, dropout = {} } = value;
  return (
    isRecord(settings) &&
    isRecord(dataSettings) &&
    isRecord(data) &&
    typeof data["training"] === "string" &&
    (data["validation"] === null || typeof data["validation"] === "string") &&
    ["string", "undefined"].includes(typeof data["generalTraining"]) &&
    [data["generalValidation"] ?? "none"].every((digest) => typeof digest === "string") &&
    isRecord(base) &&
    typeof base["weights"] === "string" &&
    isRecord(base["config"]) &&
    isRecord(dropout)
  );
}

const notARecord = (file: string, field: string): LockstepError<"E_JSON_FILE"> =>
  new LockstepError("E_JSON_FILE", { file, problem: `its ${field} is not that of a run` });

/** Of those of the files that are there. */
export async function sizesOf(
  directory: string,
  names: readonly string[],
): Promise<Readonly<Record<string, number>>> {
  const sizes: Record<string, number> = {};
  for (const name of names) {
    const found = await stat(join(directory, name)).catch(() => undefined);
    if (found?.isFile() === true) sizes[name] = found.size;
  }
  return sizes;
}
