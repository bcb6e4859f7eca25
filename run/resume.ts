import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import {
  type CheckpointRecord,
  OptimizerStateReader,
  type OwnedCheckpoint,
  readCheckpointRecord,
  verifyChecksums,
} from "#lib/checkpoint/index";
import {
  checkedFiles,
  checksumsFile,
  ownFolder,
  readCheckpointSums,
} from "#lib/checkpoint/checked-files";
import { checkpointRecordFile } from "#lib/checkpoint/run-record";
import { localFiles } from "#lib/checkpoint/state-files";
import type { ResolvedConfig, SettledBefore } from "#lib/config/index";
import type { HalfTypes } from "#lib/core/dtype";
import { isLockstepError, LockstepError } from "#lib/core/errors/index";
import { isStoreUrl } from "#lib/store/location";
import type { EventBus } from "#lib/wire/event-bus";
import type { CheckpointState } from "#coordinator/options";
import type { PrecisionChoice } from "./precision.js";
import { configFile, stateFile } from "./checkpoint-files.js";
import { readState } from "./files.js";
import { openStoredCheckpoint } from "./stored-resume.js";

/** A checkpoint that is whole. */
export interface ResumePoint {
  readonly directory: string;
  readonly state: CheckpointState;
  readonly optimizer: OptimizerStateReader;
  readonly record: CheckpointRecord;
  /** The configuration that it was saved with. */
  readonly settings: SettledBefore;
  /** What its run computed in. */
  readonly halfTypes: HalfTypes;
}

/** What `bf16: auto` and `fp16: auto` are for a run that goes on: what they were. */
export const resumedPrecision = ({ halfTypes, directory }: ResumePoint): PrecisionChoice => ({
  ...halfTypes,
  reason: `as in ${directory}`,
});

/**
 * Opens a checkpoint. What is read of it later is compared with its checksums then.
 *
 * @param options.readsAll whether all of it is read once before; never of one in a store
 * @throws E_NO_CHECKPOINT where it holds no state of a run; E_CHECKPOINT_DAMAGED
 */
export async function openCheckpoint(
  directory: string,
  config: StoreKeys,
  { readsAll }: { readonly readsAll: boolean },
): Promise<ResumePoint> {
  return isStoreUrl(directory)
    ? openStoredCheckpoint(directory, config, readPoint)
    : openCheckpointDirectory(directory, readsAll);
}

/** By which a store is reached. */
export type StoreKeys = Pick<ResolvedConfig, "s3_endpoint" | "s3_region">;

async function openCheckpointDirectory(directory: string, readsAll: boolean): Promise<ResumePoint> {
  const own = join(directory, ownFolder);
  if (!existsSync(join(directory, stateFile)) && !existsSync(join(directory, checksumsFile))) {
    const problem = existsSync(directory)
      ? `it holds no state of a run in ${ownFolder}/ (save_only_model, or saved by another program)`
      : "it does not exist";
    throw new LockstepError("E_NO_CHECKPOINT", { directory, problem });
  }
  const optimizerFiles = (await readdir(own)).filter((name) => name.startsWith("optimizer-"));
  const small = [stateFile, configFile, checkpointRecordFile];
  const required = [...small, ...optimizerFiles.map((name) => `${ownFolder}/${name}`)];
  await verifyChecksums(directory, checksumsFile, required, readsAll ? undefined : small);
  const sums = await readCheckpointSums(directory, directory);
  if (sums === undefined) {
    const details = { directory, file: checksumsFile, problem: "is missing" };
    throw new LockstepError("E_CHECKPOINT_DAMAGED", details);
  }
  const files = checkedFiles(localFiles(own), sums, directory, { areWhole: readsAll });
  return readPoint(directory, directory, () => OptimizerStateReader.open(own, files));
}

/**
 * @param directory of which a person is told
 * @param files directory that holds its small files, which are whole
 */
async function readPoint(
  directory: string,
  files: string,
  openOptimizer: () => Promise<OptimizerStateReader>,
): Promise<ResumePoint> {
  const record = await readCheckpointRecord(files);
  if (record === undefined) {
    const problem = "is missing: an earlier version saved it";
    throw new LockstepError("E_CHECKPOINT_DAMAGED", {
      ...{ directory, file: checkpointRecordFile, problem },
    });
  }
  const settings = await readSettings(join(files, configFile));
  const state = await readState(join(files, stateFile));
  const optimizer = await openOptimizer();
  const halfTypes = halfTypesOf(settings);
  return { directory, state, optimizer, record, settings, halfTypes };
}

/**
 * Opens the last saved checkpoint that is whole.
 *
 * @param checkpoints from the first saved to the last
 * @returns the checkpoint, and a line for each that was passed over; no checkpoint where there is none
 * @throws E_NO_CHECKPOINT where none is whole
 */
export async function openNewestWhole(
  outputDir: string,
  checkpoints: readonly OwnedCheckpoint[],
  config: StoreKeys,
  options: { readonly readsAll: boolean },
): Promise<{ readonly point: ResumePoint | undefined; readonly lines: readonly string[] }> {
  const problems: string[] = [];
  for (const { directory } of checkpoints.toReversed()) {
    try {
      const point = await openCheckpoint(directory, config, options);
      const lines = problems.map((problem) => `passed over: ${problem}`);
      return { point, lines };
    } catch (error) {
      if (!isLockstepError(error) || !passedOver.has(error.code)) throw error;
      problems.push(error.message.replace(/\.$/, ""));
    }
  }
  if (problems.length === 0) return { point: undefined, lines: [] };
  const problem = `none of its checkpoints can be used. ${problems.join(". ")}`;
  throw new LockstepError("E_NO_CHECKPOINT", { directory: outputDir, problem });
}

/** What a damaged checkpoint, or one without a state, ends with; a disk that fails is another matter. */
const passedOver: ReadonlySet<string> = new Set([
  "E_NO_CHECKPOINT",
  "E_CHECKPOINT_DAMAGED",
  "E_FILE_NOT_FOUND",
  "E_FILE_TRUNCATED",
  "E_JSON_FILE",
  "E_CONFIG_SYNTAX",
  "E_SAFETENSORS_HEADER",
  "E_SAFETENSORS_OFFSETS",
]);

/** What a run of these settings computes in. */
export const halfTypesOf = (settings: SettledBefore): HalfTypes => ({
  bf16: settings.get("bf16") === true,
  fp16: settings.get("fp16") === true,
});

export async function readSettings(file: string): Promise<SettledBefore> {
  const { parseConfigText } = await import("#lib/config/yaml-file");
  const parsed = parseConfigText(await readFile(file, "utf8"), file);
  return new Map([...parsed].map(([key, { value }]) => [key, value]));
}

/** Whether a configuration goes on from whatever is in its output directory. */
export const takesNewest = (config: ResolvedConfig): boolean =>
  [true, "auto"].includes(wantedCheckpoint(config) ?? false);

/** `resume_from_checkpoint`; one of several coordinators that stand by goes on with what the others began. */
export const wantedCheckpoint = ({
  resume_from_checkpoint: wanted,
  standby,
}: ResolvedConfig): ResolvedConfig["resume_from_checkpoint"] => wanted ?? (standby ? "auto" : null);

/** Another kind of device than the checkpoint's computes other bits: refused, or told. */
export function compareDevices(
  { record, directory }: ResumePoint,
  deviceKind: string,
  options: {
    readonly isRefused: boolean;
    readonly fail: (error: unknown) => void;
    readonly bus: EventBus;
  },
): void {
  if (record.deviceKind === null || record.deviceKind === deviceKind) return;
  const difference = `the device was "${record.deviceKind}" and is now "${deviceKind}"`;
  const { isRefused, fail, bus } = options;
  const effect = isRefused
    ? "its worker is refused (deterministic: true)"
    : "the run goes on with other last bits than it would have had (deterministic: false)";
  bus.publish({
    type: "phase.changed",
    phase: "waiting-for-workers",
    detail: `${directory}: ${difference}; ${effect}`,
  });
  if (!isRefused) return;
  const differences = `${difference}, which changes the last bits (deterministic: false goes on all the same)`;
  fail(new LockstepError("E_RESUME_MISMATCH", { directory, differences }));
}
