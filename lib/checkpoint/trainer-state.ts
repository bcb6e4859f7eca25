import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { LockstepError } from "#lib/core/errors/index";
import { isRecord, readJsonFile } from "./file-reader.js";
import { maxTrainerStateBytes } from "./limits.js";
import { formatPythonJson } from "./python-json.js";

export const trainerStateFileName = "trainer_state.json";

/** One line of a run's history; `step` and `epoch` always, the rest by kind (training, evaluation, end). */
export interface LogEntry {
  readonly step: number;
  readonly epoch: number;
  readonly [name: string]: number | null;
}

/** transformers' TrainerState under its own field names, in its units. */
export interface TrainerState {
  readonly best_global_step: number | null;
  readonly best_metric: number | null;
  readonly best_model_checkpoint: string | null;
  /** Epochs completed, fractional. */
  readonly epoch: number;
  /** An integer of steps, or a fraction of max_steps below 1; so are logging_steps and save_steps. */
  readonly eval_steps: number;
  readonly global_step: number;
  readonly is_hyper_param_search: boolean;
  readonly is_local_process_zero: boolean;
  readonly is_world_process_zero: boolean;
  readonly log_history: readonly LogEntry[];
  readonly logging_steps: number;
  readonly max_steps: number;
  readonly num_input_tokens_seen: number;
  readonly num_train_epochs: number;
  readonly save_steps: number;
  readonly stateful_callbacks: Readonly<Record<string, unknown>>;
  readonly total_flos: number;
  readonly train_batch_size: number;
  readonly trial_name: string | null;
  readonly trial_params: Readonly<Record<string, unknown>> | null;
}

/** What a new run starts with; give the fields that differ. */
export function trainerState(fields: Partial<TrainerState> = {}): TrainerState {
  return {
    best_global_step: null,
    best_metric: null,
    best_model_checkpoint: null,
    epoch: 0,
    eval_steps: 500,
    global_step: 0,
    is_hyper_param_search: false,
    is_local_process_zero: true,
    is_world_process_zero: true,
    log_history: [],
    logging_steps: 500,
    max_steps: 0,
    num_input_tokens_seen: 0,
    num_train_epochs: 0,
    save_steps: 500,
    stateful_callbacks: {},
    total_flos: 0,
    train_batch_size: 1,
    trial_name: null,
    trial_params: null,
    ...fields,
  };
}

/** Fields that Python holds as integers, nested ones included; every other number is a float. */
const integerFields = new Set([
  "best_global_step",
  "early_stopping_patience",
  "early_stopping_patience_counter",
  "eval_steps",
  "global_step",
  "logging_steps",
  "max_steps",
  "num_input_tokens_seen",
  "num_train_epochs",
  "save_steps",
  "step",
  "train_batch_size",
]);

export const isIntegerField = (name: string): boolean => integerFields.has(name);

/** The file's text: two-space indent, sorted keys, Python's floats, a newline at the end. */
function formatTrainerState(state: TrainerState): string {
  return `${formatPythonJson(state, isIntegerField)}\n`;
}

export async function writeTrainerState(directory: string, state: TrainerState): Promise<void> {
  await writeFile(join(directory, trainerStateFileName), formatTrainerState(state));
}

/** Reads a trainer_state.json of ours or of transformers, whose NaN and Infinity become null. */
export async function readTrainerState(directory: string): Promise<TrainerState> {
  const file = join(directory, trainerStateFileName);
  const parsed = await readJsonFile(file, "trainer state", maxTrainerStateBytes, (text) =>
    text.replace(/: (?:NaN|-?Infinity)(?=,?\n)/g, ": null"),
  );
  const fail = (problem: string): never => {
    throw new LockstepError("E_JSON_FILE", { file, problem });
  };
  if (!isRecord(parsed)) return fail("it is not an object");
  const state = trainerState(parsed as Partial<TrainerState>);
  if (!Number.isSafeInteger(state.global_step) || state.global_step < 0) {
    fail("its global_step is not a number of steps");
  }
  if (!Number.isFinite(state.epoch)) fail("its epoch is not a number");
  if (!Array.isArray(state.log_history) || !state.log_history.every(isLogEntry)) {
    fail("its log_history is not a list of entries with a step");
  }
  return state;
}

function isLogEntry(value: unknown): value is LogEntry {
  return isRecord(value) && Number.isSafeInteger(value["step"]);
}
