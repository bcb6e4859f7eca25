import { mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  checkpointName,
  listCheckpoints,
  OptimizerStateReader,
  rotateCheckpoints,
  saveAtomically,
  saveFilesAtomically,
  trainerState,
  writeModelDirectory,
  writeOptimizerState,
  writeTrainerState,
} from "#lib/checkpoint/index";
import { isRecord, readJsonFile } from "#lib/checkpoint/file-reader";
import { intervalSteps, printConfig, type ResolvedConfig } from "#lib/core/config/index";
import { LockstepError } from "#lib/core/errors/index";
import type { ElementRange, TensorSlot } from "#lib/core/parameter-layout";
import type { CheckpointState, Snapshot } from "#coordinator/options";
import type { PreparedRun } from "./prepare.js";

/** Beside the Hugging Face files: what only Lockstep needs to go on. */
const ownFolder = "lockstep";
const stateFile = "state.json";
const configFile = "config.yaml";
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
    await writeTrainerState(temporary, stateForTrainer(run, state));
    if (config.save_only_model) return;
    const own = join(temporary, ownFolder);
    await mkdir(own);
    await writeOptimizerState(own, snapshot);
    await writeFile(join(own, stateFile), `${JSON.stringify(state, null, 2)}\n`);
    await writeFile(join(own, configFile), printConfig(config));
  });
  await rotateCheckpoints(config.output_dir, config.save_total_limit);
  return { directory, bytes: await directoryBytes(directory) };
}

/** Writes the finished model into `output_dir` itself, beside its checkpoints. */
export async function saveFinalModel(
  run: PreparedRun,
  snapshot: Snapshot,
  state: CheckpointState,
): Promise<{ directory: string; bytes: number }> {
  const directory = run.config.output_dir;
  let bytes = 0;
  await saveFilesAtomically(directory, async (temporary) => {
    await writeModel(run, temporary, snapshot);
    await writeTrainerState(temporary, stateForTrainer(run, state));
    bytes = await directoryBytes(temporary);
  });
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
}

/**
 * Opens the checkpoint that `resume_from_checkpoint` names: a directory, or the newest one for `true`.
 *
 * @throws E_NO_CHECKPOINT, E_CONFIG_CONFLICT where a key that decides the bits has another value
 */
export async function openResumePoint(config: ResolvedConfig): Promise<ResumePoint | undefined> {
  const wanted = config.resume_from_checkpoint;
  if (wanted === null || wanted === false) return undefined;
  const directory =
    wanted === true ? (await listCheckpoints(config.output_dir)).at(-1)?.directory : wanted;
  if (directory === undefined) {
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
  const state = await readState(join(own, stateFile));
  await checkSameRun(config, join(own, configFile));
  return { directory, state, optimizer: await OptimizerStateReader.open(own) };
}

/** Keys that decide which samples a step sees and how its sums are made. */
const decisiveKeys = [
  "dataset",
  "eval_dataset",
  "validation_split",
  "max_length",
  "max_train_samples",
  "global_batch_size",
  "per_device_train_batch_size",
  "gradient_groups",
  "data_seed",
  "bf16",
  "wire_dtype",
] as const satisfies readonly (keyof ResolvedConfig)[];

async function checkSameRun(config: ResolvedConfig, file: string): Promise<void> {
  const { parseConfigText } = await import("#lib/core/config/yaml-file");
  const saved = parseConfigText(await readFile(file, "utf8"), file);
  for (const key of decisiveKeys) {
    const before = JSON.stringify(saved.get(key)?.value ?? null);
    const now = JSON.stringify(config[key]);
    if (before !== now) {
      throw new LockstepError("E_CONFIG_CONFLICT", {
        keys: `${key} and resume_from_checkpoint`,
        reason: `the checkpoint was made with ${before}, now it is ${now}, and the run would not go on where it stopped`,
      });
    }
  }
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
  return {
    step: parsed.step,
    numUpdates: parsed.numUpdates,
    epoch: parsed.epoch,
    numInputTokens: parsed.numInputTokens,
    logHistory: parsed.logHistory as CheckpointState["logHistory"],
  };
}

async function writeModel(run: PreparedRun, directory: string, snapshot: Snapshot): Promise<void> {
  await writeModelDirectory(directory, {
    sourceDir: run.modelDirectory,
    dtype: run.config.save_dtype,
    tensors: run.job.layout.tensors.map((slot) => ({
      name: slot.name,
      shape: slot.shape,
      read: () => gatherTensor(slot, snapshot),
    })),
  });
}

/** A tensor's float32 elements from the shards that hold parts of it. */
export function gatherTensor(
  slot: TensorSlot,
  pieces: readonly { readonly range: ElementRange; readonly masters: Float32Array }[],
): Float32Array {
  const out = new Float32Array(slot.size);
  for (const { range, masters } of pieces) {
    const start = Math.max(range.start, slot.offset);
    const end = Math.min(range.end, slot.offset + slot.size);
    if (start >= end) continue;
    out.set(masters.subarray(start - range.start, end - range.start), start - slot.offset);
  }
  return out;
}

function stateForTrainer(run: PreparedRun, state: CheckpointState) {
  const { config, plan } = run;
  const interval = (what: "logging" | "eval" | "save"): number =>
    intervalSteps(config, what, plan.totalSteps, plan.stepsPerEpoch);
  return trainerState({
    epoch: state.epoch,
    global_step: state.step,
    log_history: state.logHistory,
    max_steps: plan.totalSteps,
    num_train_epochs: Math.ceil(plan.totalSteps / plan.stepsPerEpoch),
    num_input_tokens_seen: state.numInputTokens,
    logging_steps: interval("logging") || config.logging_steps,
    eval_steps: interval("eval") || config.eval_steps,
    save_steps: interval("save") || config.save_steps,
    train_batch_size: config.per_device_train_batch_size,
    // 6 x parameters x tokens, as transformers estimates them.
    total_flos: 6 * run.numParameters * state.numInputTokens,
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
