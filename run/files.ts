import type { KeptArray, KeptPiece, TensorStates } from "#lib/core/shard-arrays";
import { copyFile, mkdir, readdir, stat, writeFile } from "node:fs/promises";
import { dirname, join, relative, resolve } from "node:path";
import {
  checkpointName,
  listOwnedCheckpoints,
  outputRecordFile,
  readOutputRecord,
  sizesOf,
  type OwnedCheckpoint,
  rotateCheckpoints,
  saveAtomically,
  saveFilesAtomically,
  writeCheckpointRecord,
  writeChecksums,
  writeOptimizerState,
  writeOutputRecord,
  writeTrainerState,
} from "#lib/checkpoint/index";
import { copyAdditionalTemplates } from "#lib/checkpoint/model-directory";
import { explainWriteError, removeDirectoryAtomically } from "#lib/checkpoint/atomic-save";
import { readJsonFile } from "#lib/checkpoint/file-reader";
import type { OpenTarget } from "#lib/checkpoint/file-target";
import { WriterThreads } from "#lib/checkpoint/writer-threads";
import { trainerStateFileName } from "#lib/checkpoint/trainer-state";
import { maxShardBytes, printConfig, resultSettings } from "#lib/config/index";
import { tasksFolder } from "#lib/core/task-heads";
import type { TensorSlot } from "#lib/core/parameter-layout";
import { jobMetrics } from "#lib/objectives/task-metrics";
import { emaSlot } from "#lib/optim/index";
import { snapshotBytes } from "#coordinator/held-state";
import type { CheckpointState, Snapshot } from "#coordinator/options";
import { checkpointStateOf } from "#coordinator/saved-state";
import { emaFolder } from "./output-contents.js";
import { stoppedEarly } from "./evaluation-rules.js";
import type { PreparedRun } from "./prepared-run.js";
import { bestCheckpoint, stateForTrainer, writeResults } from "./results.js";
import type { StartedRun } from "./start.js";

/** Beside the Hugging Face files of a checkpoint: what only Lockstep needs to go on. */
export const ownFolder = "lockstep";
export const stateFile = `${ownFolder}/state.json`;
export const configFile = `${ownFolder}/config.yaml`;
/** SHA-256 of every other file of the checkpoint. */
export const checksumsFile = `${ownFolder}/checksums.json`;
/** From here on threads of their own are worth their start, bytes of a snapshot. */
const threadedBytes = 32 << 20;
/** Encoding and hashing take about a second per gigabyte in each. */
const numWriterThreads = 2;
/** The history of a long run, some hundred bytes an entry. */
const maxStateBytes = 256 << 20;

/** What is saved beside the snapshot and the state. */
interface BesideSnapshot {
  readonly tensorStates: TensorStates;
  readonly deviceKind: string | undefined;
  /** Called when nothing more of the snapshot is read. */
  readonly onRead?: () => void;
}

/** Writes `checkpoint-N/` and drops old ones of the same run. */
export async function saveCheckpoint(
  run: StartedRun,
  snapshot: Snapshot,
  state: CheckpointState,
  beside: BesideSnapshot,
): Promise<{ directory: string; bytes: number }> {
  const { config, record, lastSave } = run;
  const directory = join(config.output_dir, checkpointName(state.step));
  const savedAtMs = Math.max(Date.now(), lastSave.atMs + 1);
  const isBest = state.best?.step === state.step;
  const best = isBest ? directory : await bestCheckpoint(run, state);
  await saveAtomically(directory, async (temporary) => {
    await mkdir(join(temporary, ownFolder));
    const sums = await writeTensorFiles(snapshot, async (openTarget) => [
      writeModels(run, temporary, { snapshot, ...state, openTarget }),
      ...(config.save_only_model
        ? []
        : [
            writeOptimizerState(
              join(temporary, ownFolder),
              snapshot,
              beside.tensorStates,
              openTarget,
            ),
          ]),
    ]);
    beside.onRead?.();
    await writeTrainerState(temporary, stateForTrainer(run, state, best));
    await writeCheckpointRecord(temporary, {
      ...record,
      deviceKind: beside.deviceKind ?? record.deviceKind,
      savedAtMs,
    });
    if (config.save_only_model) return;
    await writeFile(join(temporary, stateFile), `${JSON.stringify(state, null, 2)}\n`);
    await writeFile(join(temporary, configFile), printConfig(config));
    await writeChecksums(temporary, checksumsFile, sums);
  });
  lastSave.atMs = savedAtMs;
  try {
    await rotateCheckpoints(await checkpointsOf(run), config.save_total_limit, best);
    return { directory, bytes: await directoryBytes(directory) };
  } catch (error) {
    throw explainWriteError(error, directory);
  }
}

/**
 * Writes the finished model into `output_dir` itself, beside its checkpoints: with `load_best_model_at_end` that of
 * the checkpoint of the best evaluation, else the weights given.
 */
export async function saveFinalModel(
  run: StartedRun,
  {
    snapshot,
    ...of
  }: Pick<CheckpointState, "step" | "numUpdates"> & { readonly snapshot: Snapshot },
  state: CheckpointState,
): Promise<{ directory: string; bytes: number }> {
  const directory = run.config.output_dir;
  const kept = await bestCheckpoint(run, state);
  let bytes = 0;
  const write = async (temporary: string): Promise<void> => {
    const isBest = kept !== undefined && run.config.load_best_model_at_end;
    if (isBest) await copyModel(kept, temporary);
    else {
      await writeTensorFiles(snapshot, async (openTarget) => [
        writeModels(run, temporary, { snapshot, ...of, openTarget }),
      ]);
    }
    await writeTrainerState(temporary, stateForTrainer(run, state, kept));
    const { step } = isBest ? (state.best ?? of) : of;
    await writeResults(temporary, state.logHistory, jobMetrics(run.job), step);
    bytes = await directoryBytes(temporary);
    const files = new Set([...run.files, ...(await resultFiles(temporary))]);
    const record = { ...run.record, finished: null, files: [...files].sort() };
    await writeOutputRecord(temporary, record);
  };
  await saveFilesAtomically(directory, write, outputRecordFile);
  const isHere = kept !== undefined && resolve(dirname(kept)) === resolve(directory);
  if (isHere && run.config.save_total_limit === 1) {
    // While training went on, the newest had to stay beside the best.
    for (const checkpoint of await checkpointsOf(run)) {
      if (checkpoint.directory !== kept) await removeDirectoryAtomically(checkpoint.directory);
    }
  }
  return { directory, bytes };
}

/** Remembers that the result in `output_dir` is whole, and that nothing is left to be done with it. */
export async function markFinished(run: StartedRun, state: CheckpointState): Promise<void> {
  const { step } = state;
  const stopped = stoppedEarly(run, state) === undefined ? undefined : state.earlyStopping;
  const directory = run.config.output_dir;
  const record = await readOutputRecord(directory);
  if (record === undefined) return;
  const finished = {
    ...{ step, totalSteps: run.plan.totalSteps },
    ...(stopped === undefined ? {} : { earlyStopping: stopped }),
    fileBytes: await sizesOf(directory, record.files),
    settings: resultSettings(run.config),
  };
  await saveFilesAtomically(directory, (temporary) =>
    writeOutputRecord(temporary, { ...record, finished }),
  );
}

/** Those in the run's output directory that it saved itself, from the first to the last. */
async function checkpointsOf(run: StartedRun): Promise<readonly OwnedCheckpoint[]> {
  const checkpoints = await listOwnedCheckpoints(run.config.output_dir);
  return checkpoints.filter(({ record }) => record?.runId === run.record.runId);
}

/** @throws E_JSON_FILE */
export const readState = async (file: string): Promise<CheckpointState> =>
  checkpointStateOf(await readJsonFile(file, "state of the run", maxStateBytes), file);

/** Folders of a result that hold models. */
const modelFolders = [emaFolder, tasksFolder];

/** Names in a directory, and of the files in its folders of models. */
async function resultFiles(directory: string): Promise<string[]> {
  const names = (await readdir(directory)).filter((name) => !modelFolders.includes(name));
  const inFolders = modelFolders.map(async (folder) => {
    const items = await readdir(join(directory, folder), {
      recursive: true,
      withFileTypes: true,
    }).catch(() => []);
    return items
      .filter((item) => item.isFile())
      .map((item) => relative(directory, join(item.parentPath, item.name)));
  });
  return [...names, ...(await Promise.all(inFolders)).flat()];
}

interface WrittenModels extends Pick<CheckpointState, "step" | "numUpdates"> {
  readonly snapshot: Snapshot;
  readonly openTarget: OpenTarget | undefined;
}

/**
 * Writes files of tensors, in threads where they are large.
 *
 * @param begin begins them all
 * @returns checksums of those that threads wrote, by path
 */
async function writeTensorFiles(
  snapshot: Snapshot,
  begin: (openTarget: OpenTarget | undefined) => Promise<readonly Promise<void>[]>,
): Promise<ReadonlyMap<string, string>> {
  const isSmall = snapshotBytes(snapshot) < threadedBytes;
  const threads = isSmall ? undefined : await WriterThreads.start(numWriterThreads);
  try {
    const ended = await Promise.allSettled(await begin(threads?.openTarget));
    for (const file of ended) if (file.status === "rejected") throw file.reason;
    return threads?.sha256 ?? new Map();
  } finally {
    // Whatever they still read is read then.
    await threads?.close();
  }
}

type Masters = Pick<KeptPiece, "range" | "masters">;

/** The trained weights, and their average in a folder of its own where there is one. */
async function writeModels(
  run: PreparedRun,
  directory: string,
  { snapshot, step, numUpdates, openTarget }: WrittenModels,
): Promise<void> {
  await writeModel(run, directory, { step, pieces: snapshot, openTarget });
  if (run.config.ema_decay === null) return;
  const folder = join(directory, emaFolder);
  await mkdir(folder);
  const averages = snapshot.map(({ range, states }) => ({
    range,
    masters: states[emaSlot] ?? new Float32Array(),
  }));
  // Before the first update there is nothing to average.
  const pieces = numUpdates === 0 ? snapshot : averages;
  await writeModel(run, folder, { step, pieces, openTarget });
}

const writeModel = (
  run: PreparedRun,
  directory: string,
  {
    step,
    pieces,
    openTarget,
  }: Pick<WrittenModels, "step" | "openTarget"> & { readonly pieces: readonly Masters[] },
): Promise<void> =>
  run.parameters.save(directory, {
    valuesOf: (slot) => ({ parts: partsOfTensor(slot, pieces), finiteAfterStep: step }),
    openTarget,
    dtype: run.model.saveDtype,
    maxShardBytes: maxShardBytes(run.config),
  });

/** Every file of a checkpoint's top level and of its folders of models, the run's own state excepted. */
async function copyModel(checkpoint: string, directory: string, isFolder = false): Promise<void> {
  await copyAdditionalTemplates(checkpoint, directory);
  for (const item of await readdir(checkpoint, { withFileTypes: true })) {
    const [from, to] = [join(checkpoint, item.name), join(directory, item.name)];
    if (item.isDirectory() && (isFolder || modelFolders.includes(item.name))) {
      await mkdir(to);
      // Tasks' models are in folders of that one.
      await copyModel(from, to, item.name === tasksFolder);
    }
    if (item.isFile() && item.name !== trainerStateFileName) await copyFile(from, to);
  }
}

/** A tensor's float32 elements where they lie, in the shards that hold parts of it. */
function partsOfTensor(slot: TensorSlot, pieces: readonly Masters[]): readonly KeptArray[] {
  return pieces.flatMap(({ range, masters }) => {
    const start = Math.max(range.start, slot.offset);
    const end = Math.min(range.end, slot.offset + slot.size);
    return start >= end ? [] : [masters.subarray(start - range.start, end - range.start)];
  });
}

async function directoryBytes(directory: string): Promise<number> {
  let bytes = 0;
  for (const name of await readdir(directory, { recursive: true })) {
    const stats = await stat(join(directory, name));
    if (stats.isFile()) bytes += stats.size;
  }
  return bytes;
}
