import { copyFile, mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  checkpointName,
  listCheckpoints,
  OptimizerStateReader,
  rotateCheckpoints,
  saveAtomically,
  saveFilesAtomically,
  verifyChecksums,
  writeChecksums,
  writeModelDirectory,
  writeOptimizerState,
  writeTrainerState,
} from "#lib/checkpoint/index";
import { copyTokenizer, writeChangedConfig } from "#lib/checkpoint/model-directory";
import { classifierConfigFileName, writeAdapterDirectory } from "#lib/checkpoint/peft/index";
import { removeDirectoryAtomically } from "#lib/checkpoint/atomic-save";
import { isRecord, readJsonFile } from "#lib/checkpoint/file-reader";
import { trainerStateFileName } from "#lib/checkpoint/trainer-state";
import {
  defaultOf,
  maxShardBytes,
  printConfig,
  type ResolvedConfig,
  settleConfig,
} from "#lib/core/config/index";
import { LockstepError } from "#lib/core/errors/index";
import type { ElementRange, TensorSlot } from "#lib/core/parameter-layout";
import type { CheckpointState, Snapshot } from "#coordinator/options";
import { readAccount } from "#coordinator/run-account";
import { adapterKey } from "./lora.js";
import type { PrecisionChoice, PreparedRun } from "./prepare.js";
import { bestCheckpoint, stateForTrainer, writeResults } from "./run-results.js";

/** Beside the Hugging Face files: what only Lockstep needs to go on. */
const ownFolder = "lockstep";
const stateFile = "state.json";
const configFile = "config.yaml";
/** SHA-256 of every other file of the checkpoint. */
const checksumsFile = `${ownFolder}/checksums.json`;
/** The history of a long run, some hundred bytes an entry. */
const maxStateBytes = 256 << 20;

/** Writes `checkpoint-N/` and drops old ones. */
export async function saveCheckpoint(
  run: PreparedRun,
  snapshot: Snapshot,
  state: CheckpointState,
): Promise<{ directory: string; bytes: number }> {
  const { config } = run;
  const directory = join(config.output_dir, checkpointName(state.step));
  await saveAtomically(directory, async (temporary) => {
    await writeModel(run, temporary, snapshot);
    await writeTrainerState(temporary, stateForTrainer(run, state, checkpointName(state.step)));
    if (config.save_only_model) return;
    const own = join(temporary, ownFolder);
    await mkdir(own);
    await writeOptimizerState(own, snapshot);
    await writeFile(join(own, stateFile), `${JSON.stringify(state, null, 2)}\n`);
    await writeFile(join(own, configFile), printConfig(config));
    await writeChecksums(temporary, checksumsFile);
  });
  await rotateCheckpoints(config.output_dir, config.save_total_limit, bestCheckpoint(run, state));
  return { directory, bytes: await directoryBytes(directory) };
}

/**
 * Writes the finished model into `output_dir` itself, beside its checkpoints: the last one, or with
 * `load_best_model_at_end` that of the best evaluation.
 */
export async function saveFinalModel(
  run: PreparedRun,
  snapshot: Snapshot,
  state: CheckpointState,
): Promise<{ directory: string; bytes: number }> {
  const directory = run.config.output_dir;
  const best = run.config.load_best_model_at_end ? bestCheckpoint(run, state) : undefined;
  let bytes = 0;
  await saveFilesAtomically(directory, async (temporary) => {
    if (best === undefined) await writeModel(run, temporary, snapshot);
    else await copyModel(best, temporary);
    await writeTrainerState(temporary, stateForTrainer(run, state));
    await writeResults(temporary, state.logHistory, { isClassifier: run.labels !== undefined });
    bytes = await directoryBytes(temporary);
  });
  const kept = bestCheckpoint(run, state);
  if (kept !== undefined && run.config.save_total_limit === 1) {
    // While training went on, the newest had to stay beside the best.
    for (const checkpoint of await listCheckpoints(directory)) {
      if (checkpoint.directory !== kept) await removeDirectoryAtomically(checkpoint.directory);
    }
  }
  return { directory, bytes };
}

/** Saves the resolved configuration where a person looks for it. */
export async function saveConfig(config: ResolvedConfig): Promise<void> {
  await mkdir(config.output_dir, { recursive: true });
  await writeFile(join(config.output_dir, "lockstep.yaml"), printConfig(config));
}

export interface ResumePoint {
  readonly directory: string;
  readonly state: CheckpointState;
  readonly optimizer: OptimizerStateReader;
  /** Whether its run computed in bfloat16. */
  readonly bf16: boolean;
}

/** What `bf16: auto` is for a run that goes on: what it was. */
export const resumedPrecision = ({ bf16, directory }: ResumePoint): PrecisionChoice => ({
  bf16,
  reason: `as in ${directory}`,
});

/**
 * Opens the checkpoint that `resume_from_checkpoint` names: a directory, or the newest one for `true`.
 *
 * @throws E_NO_CHECKPOINT, E_CHECKPOINT_DAMAGED, E_CONFIG_CONFLICT where a key that decides the bits has another value
 */
export async function openResumePoint(config: ResolvedConfig): Promise<ResumePoint | undefined> {
  const wanted = config.resume_from_checkpoint;
  if (wanted === null || wanted === false) return undefined;
  const directory =
    wanted === true || wanted === "auto"
      ? (await listCheckpoints(config.output_dir)).at(-1)?.directory
      : wanted;
  if (directory === undefined) {
    if (wanted === "auto") return undefined;
    const problem = "it holds no checkpoint-N directory";
    throw new LockstepError("E_NO_CHECKPOINT", { directory: config.output_dir, problem });
  }
  const own = join(directory, ownFolder);
  const exists = await stat(join(own, stateFile)).then(
    () => true,
    () => false,
  );
  if (!exists) {
    const problem = "it has no lockstep/ folder (save_only_model, or saved by another program)";
    throw new LockstepError("E_NO_CHECKPOINT", { directory, problem });
  }
  await verifyChecksums(directory, checksumsFile);
  const state = await readState(join(own, stateFile));
  const bf16 = await checkSameRun(config, join(own, configFile));
  return { directory, state, bf16, optimizer: await OptimizerStateReader.open(own) };
}

/** Keys that decide which samples a step sees and how its sums are made. */
const decisiveKeys = [
  "dataset",
  "eval_dataset",
  "dataset_dir",
  "dataset_format",
  "dataset_text_field",
  "validation_split",
  "max_length",
  "packing",
  "on_bad_row",
  "max_samples",
  "max_train_samples",
  "train_sampling_strategy",
  "global_batch_size",
  "per_device_train_batch_size",
  "gradient_groups",
  "data_seed",
  "bf16",
  "xla",
  "wire_dtype",
  "use_peft",
  "lora_r",
  "lora_alpha",
  "lora_target_modules",
  "lora_modules_to_save",
  "use_rslora",
] as const satisfies readonly (keyof ResolvedConfig)[];

/** @returns whether the checkpoint's run computed in bfloat16, which `bf16: auto` takes over */
async function checkSameRun(asked: ResolvedConfig, file: string): Promise<boolean> {
  const { parseConfigText } = await import("#lib/core/config/yaml-file");
  const saved = parseConfigText(await readFile(file, "utf8"), file);
  // A key that the checkpoint does not have is younger than it.
  const valueOf = (key: (typeof decisiveKeys)[number]): unknown =>
    saved.has(key) ? saved.get(key)?.value : defaultOf(key);
  const bf16 = valueOf("bf16") === true;
  const config = settleConfig(asked, bf16);
  for (const key of decisiveKeys) {
    const before = JSON.stringify(valueOf(key));
    const now = JSON.stringify(config[key]);
    if (before !== now) {
      throw new LockstepError("E_CONFIG_CONFLICT", {
        keys: `${key} and resume_from_checkpoint`,
        reason: `the checkpoint was made with ${before}, now it is ${now}, and the run would not go on where it stopped`,
      });
    }
  }
  return bf16;
}

async function readState(file: string): Promise<CheckpointState> {
  const parsed = await readJsonFile(file, "state of the run", maxStateBytes);
  const isCount = (value: unknown): value is number => Number.isSafeInteger(value);
  if (
    !isRecord(parsed) ||
    !isCount(parsed.step) ||
    !isCount(parsed.numUpdates) ||
    !isCount(parsed.numInputTokens) ||
    typeof parsed.epoch !== "number" ||
    !Array.isArray(parsed.logHistory)
  ) {
    throw new LockstepError("E_JSON_FILE", { file, problem: "it is not the state of a run" });
  }
  const { best } = parsed;
  return {
    step: parsed.step,
    numUpdates: parsed.numUpdates,
    epoch: parsed.epoch,
    numInputTokens: parsed.numInputTokens,
    logHistory: parsed.logHistory as CheckpointState["logHistory"],
    ...(isRecord(best) && typeof best.metric === "number" && isCount(best.step)
      ? { best: { metric: best.metric, step: best.step } }
      : {}),
    ...withAccount(parsed.account),
  };
}

function withAccount(value: unknown): Pick<CheckpointState, "account"> {
  const account = readAccount(value);
  return account === undefined ? {} : { account };
}

async function writeModel(run: PreparedRun, directory: string, snapshot: Snapshot): Promise<void> {
  if (run.adapter !== undefined) {
    await writeAdapterDirectory(directory, {
      config: run.adapter,
      dtype: run.saveDtype,
      tensors: run.job.layout.tensors.map((slot) => ({
        name: adapterKey(slot.name),
        shape: slot.shape,
        read: async () => gatherTensor(slot, snapshot),
      })),
    });
    await copyTokenizer(run.modelDirectory, directory);
    if (run.labels !== undefined) {
      const file = join(directory, classifierConfigFileName);
      await writeChangedConfig(file, run.modelDirectory, run.configChanges);
    }
    return;
  }
  await writeModelDirectory(directory, {
    sourceDir: run.modelDirectory,
    dtype: run.saveDtype,
    configChanges: run.configChanges,
    maxShardBytes: maxShardBytes(run.config),
    tensors: run.job.layout.tensors.map((slot) => ({
      name: slot.name,
      shape: slot.shape,
      read: () => gatherTensor(slot, snapshot),
    })),
  });
}

/** Every file of a checkpoint's top level, the run's own state excepted. */
async function copyModel(checkpoint: string, directory: string): Promise<void> {
  for (const item of await readdir(checkpoint, { withFileTypes: true })) {
    if (!item.isFile() || item.name === trainerStateFileName) continue;
    await copyFile(join(checkpoint, item.name), join(directory, item.name));
  }
}

/**
 * A tensor's float32 elements from the shards that hold parts of it: a view where one holds all of it,
 * a copy only where it lies across two.
 */
export function gatherTensor(
  slot: TensorSlot,
  pieces: readonly { readonly range: ElementRange; readonly masters: Float32Array }[],
): Float32Array {
  const whole = pieces.find(
    ({ range }) => range.start <= slot.offset && slot.offset + slot.size <= range.end,
  );
  if (whole !== undefined) {
    const start = slot.offset - whole.range.start;
    return whole.masters.subarray(start, start + slot.size);
  }
  const out = new Float32Array(slot.size);
  for (const { range, masters } of pieces) {
    const start = Math.max(range.start, slot.offset);
    const end = Math.min(range.end, slot.offset + slot.size);
    if (start >= end) continue;
    out.set(masters.subarray(start - range.start, end - range.start), start - slot.offset);
  }
  return out;
}

async function directoryBytes(directory: string): Promise<number> {
  let bytes = 0;
  for (const name of await readdir(directory, { recursive: true })) {
    const stats = await stat(join(directory, name));
    if (stats.isFile()) bytes += stats.size;
  }
  return bytes;
}
