import { copyFile, mkdir, readdir, stat, writeFile } from "node:fs/promises";
import { basename, join, relative } from "node:path";
import { explainWriteError } from "#lib/checkpoint/atomic-save";
import { checksumsFile, ownFolder, writeCheckpointSums } from "#lib/checkpoint/checked-files";
import { listFiles, readChecksums, sha256 } from "#lib/checkpoint/checksums";
import { readJsonFile } from "#lib/checkpoint/file-reader";
import {
  checkpointName,
  type OwnedCheckpoint,
  outputRecordFile,
  readOutputRecord,
  rotateCheckpoints,
  saveFilesAtomically,
  sizesOf,
  writeCheckpointRecord,
  writeOptimizerState,
  writeOutputRecord,
  writeTrainerState,
} from "#lib/checkpoint/index";
import { copyAdditionalTemplates } from "#lib/checkpoint/model-directory";
import { isWriteFailure } from "#lib/checkpoint/repeated-save";
import { trainerStateFileName } from "#lib/checkpoint/trainer-state";
import { printConfig, type ResolvedConfig, resultSettings } from "#lib/config/index";
import { LockstepError } from "#lib/core/errors/index";
import type { TensorStates } from "#lib/core/shard-arrays";
import { tasksFolder } from "#lib/core/task-heads";
import { jobMetrics } from "#lib/objectives/task-metrics";
import { isStoreUrl, splitStoreUrl } from "#lib/store/location";
import type { CheckpointState, Snapshot } from "#coordinator/options";
import { checkpointStateOf } from "#coordinator/saved-state";
import {
  configFile,
  type SavedCheckpoint,
  stateFile,
  type WriteCheckpoint,
} from "./checkpoint-files.js";
import { checkpointPlace } from "./checkpoint-place.js";
import { stoppedEarly } from "./evaluation-rules.js";
import { emaFolder } from "./output-contents.js";
import { bestCheckpoint, stateForTrainer, writeResults } from "./results.js";
import type { StartedRun } from "./start.js";
import { storeAt } from "./open-store.js";
import { fetchModel } from "./store-files.js";
import { storeResult } from "./stored-result.js";
import { writeModels, writeTensorFiles } from "./tensor-files.js";

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
): Promise<SavedCheckpoint & { readonly relayedBytes: number }> {
  const { config, record, lastSave } = run;
  const place = await checkpointPlace(config);
  const name = checkpointName(state.step);
  const directory = place.directoryOf(name);
  const savedAtMs = Math.max(Date.now(), lastSave.atMs + 1);
  const isBest = state.best?.step === state.step;
  const best = isBest ? directory : await bestCheckpoint(run, state);
  let relayedBytes = 0;
  const write: WriteCheckpoint = async (temporary, placeOf) => {
    await mkdir(join(temporary, ownFolder));
    // Models of tasks share files, which have to be here.
    const elsewhere = run.job.tasks === undefined ? placeOf : undefined;
    const { written, ...how } = await writeTensorFiles(snapshot, elsewhere, (writing) => [
      writeModels(run, temporary, { ...writing, ...state }),
      ...(config.save_only_model
        ? []
        : [
            writeOptimizerState(
              ...([join(temporary, ownFolder), writing.snapshot, beside.tensorStates] as const),
              ...([writing.openTarget, writing.haveWritten] as const),
            ),
          ]),
    ]);
    relayedBytes = how.relayedBytes;
    beside.onRead?.();
    await writeTrainerState(temporary, stateForTrainer(run, state, best));
    await writeCheckpointRecord(temporary, {
      ...record,
      deviceKind: beside.deviceKind ?? record.deviceKind,
      savedAtMs,
    });
    if (!config.save_only_model) {
      await writeFile(join(temporary, stateFile), `${JSON.stringify(state, null, 2)}\n`);
      await writeFile(join(temporary, configFile), printConfig(config));
    }
    if (!config.save_only_model || placeOf !== undefined) {
      await writeCheckpointSums(temporary, written);
    }
    return elsewhere === undefined ? new Map() : written;
  };
  const previous = (await checkpointsOf(run)).at(-1)?.directory;
  const saved = { ...(await place.save(name, write, previous)), relayedBytes };
  lastSave.atMs = savedAtMs;
  try {
    await place.sweep();
    const remove = (old: string): Promise<void> => place.remove(old);
    await rotateCheckpoints(await checkpointsOf(run), config.save_total_limit, best, remove);
    return saved;
  } catch (error) {
    const explained = explainWriteError(error, directory);
    // It is saved; the next save removes what is too many.
    if (!isWriteFailure(explained)) throw explained;
    return saved;
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
): Promise<{ directory: string; bytes: number; relayedBytes: number }> {
  const directory = run.config.output_dir;
  const kept = await bestCheckpoint(run, state);
  let [bytes, relayedBytes] = [0, 0];
  const write = async (temporary: string): Promise<void> => {
    const isBest = kept !== undefined && run.config.load_best_model_at_end;
    if (isBest) await copyBest(run.config, kept, temporary);
    else {
      ({ relayedBytes } = await writeTensorFiles(snapshot, undefined, (writing) => [
        writeModels(run, temporary, { ...writing, ...of }),
      ]));
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
  await storeResult(run.config);
  const place = await checkpointPlace(run.config);
  const isHere = kept !== undefined && kept === place.directoryOf(basename(kept));
  if (isHere && run.config.save_total_limit === 1) {
    // While training went on, the newest had to stay beside the best.
    for (const checkpoint of await checkpointsOf(run)) {
      if (checkpoint.directory !== kept) await place.remove(checkpoint.directory);
    }
  }
  return { directory, bytes, relayedBytes };
}

/** Remembers that the result in `output_dir` is whole, and that nothing is left to be done with it. */
export async function markFinished(
  run: StartedRun,
  state: CheckpointState,
  mastersSha256: string,
): Promise<void> {
  const { step } = state;
  const stopped = stoppedEarly(run, state) === undefined ? undefined : state.earlyStopping;
  const directory = run.config.output_dir;
  const record = await readOutputRecord(directory);
  if (record === undefined) return;
  const finished = {
    ...{ step, totalSteps: run.plan.totalSteps, mastersSha256 },
    ...(stopped === undefined ? {} : { earlyStopping: stopped }),
    fileBytes: await sizesOf(directory, record.files),
    settings: resultSettings(run.config),
  };
  await saveFilesAtomically(directory, (temporary) =>
    writeOutputRecord(temporary, { ...record, finished }),
  );
  await storeResult(run.config, [outputRecordFile]);
}

/** Copies the model of a checkpoint. @throws E_CHECKPOINT_DAMAGED where it is not what was saved */
async function copyBest(config: ResolvedConfig, kept: string, into: string): Promise<void> {
  if (!isStoreUrl(kept)) {
    await copyModel(kept, into);
    return checkCopies(kept, into);
  }
  const { above, name } = splitStoreUrl(kept);
  const store = await storeAt(above, config);
  const isWanted = (file: string): boolean =>
    !file.startsWith(`${ownFolder}/`) && file !== trainerStateFileName;
  await fetchModel(store, name, isWanted, into);
}

/** Those beside the run's that it saved itself, from the first to the last. */
async function checkpointsOf(run: StartedRun): Promise<readonly OwnedCheckpoint[]> {
  const checkpoints = await (await checkpointPlace(run.config)).list();
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

/** Compares files that were copied from a checkpoint with its checksums, where it has such. */
async function checkCopies(checkpoint: string, copies: string): Promise<void> {
  const sums = await readChecksums(checkpoint, checksumsFile);
  if (sums === undefined) return;
  for (const file of await listFiles(copies)) {
    const sum = sums.get(file);
    if (sum === undefined || (await sha256(join(copies, file))) === sum) continue;
    const problem = "has a wrong checksum";
    throw new LockstepError("E_CHECKPOINT_DAMAGED", { directory: checkpoint, file, problem });
  }
}

async function directoryBytes(directory: string): Promise<number> {
  let bytes = 0;
  for (const name of await readdir(directory, { recursive: true })) {
    const stats = await stat(join(directory, name));
    if (stats.isFile()) bytes += stats.size;
  }
  return bytes;
}
