import { writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { explainWriteError } from "#lib/checkpoint/atomic-save";
import {
  checkpointName,
  type LogEntry,
  type TrainerState,
  trainerState,
} from "#lib/checkpoint/index";
import { formatPythonJson } from "#lib/checkpoint/python-json";
import { isWriteFailure } from "#lib/checkpoint/repeated-save";
import { isIntegerField } from "#lib/checkpoint/trainer-state";
import { intervalSteps, type ResolvedConfig } from "#lib/config/index";
import type { CheckpointState } from "#coordinator/options";
import { generalKey } from "#coordinator/run-log";
import { isStoreUrl } from "#lib/store/location";
import type { Objective } from "#lib/objectives/index";
import { metricsOf } from "#lib/objectives/metrics";
import { checkpointDirectories, checkpointPlace } from "./checkpoint-place.js";
import { stoppedEarly } from "./evaluation-rules.js";
import type { PreparedRun } from "./prepared-run.js";
import type { StartedRun } from "./start.js";

/** Whether `include_num_input_tokens_seen` asks for token counts in the history. */
export function countsTokens({ include_num_input_tokens_seen: value }: ResolvedConfig): boolean {
  return value !== "no" && value !== false;
}

/** transformers' estimate of a token's forward and backward pass: 6 a parameter outside of embeddings. */
export function flosPerToken(run: PreparedRun): number {
  return 6 * run.model.numComputedParameters;
}

/**
 * The checkpoint of the best evaluation, where this run saved it and it still is: here, or where it went on from.
 *
 * @throws what may pass where that cannot be told now, E_CHECKPOINT_STORE say
 */
export async function bestCheckpoint(
  { config, record, resumedFrom }: StartedRun,
  state: CheckpointState,
): Promise<string | undefined> {
  if (state.best === undefined) return undefined;
  const name = checkpointName(state.best.step);
  const place = await checkpointPlace(config);
  const before = resumedFrom === undefined || isStoreUrl(resumedFrom) ? [] : [resumedFrom];
  const places = [place, ...before.map((directory) => checkpointDirectories(dirname(directory)))];
  for (const each of places) {
    const saved = await each.record(name).catch((error: unknown) => {
      const explained = explainWriteError(error, each.directoryOf(name));
      // That it cannot be looked at now says nothing of whether it is there.
      if (each === place && isWriteFailure(explained)) throw explained;
      return undefined;
    });
    if (saved?.runId === record.runId) return each.directoryOf(name);
  }
  return undefined;
}

/**
 * The run's state in transformers' form.
 *
 * @param bestDirectory the checkpoint of the best evaluation, where there is one
 */
export function stateForTrainer(
  run: PreparedRun,
  state: CheckpointState,
  bestDirectory: string | undefined,
): TrainerState {
  const { config, plan } = run;
  const interval = (what: "logging" | "eval" | "save", otherwise: number): number =>
    config[`${what}_strategy`] === "steps"
      ? intervalSteps(config, what, plan.totalSteps, plan.stepsPerEpoch)
      : otherwise;
  const isOver = state.step >= plan.totalSteps || stoppedEarly(run, state) !== undefined;
  const { best } = state;
  return trainerState({
    best_global_step: best?.step ?? null,
    best_metric: best?.metric ?? null,
    best_model_checkpoint: bestDirectory ?? null,
    epoch: state.epoch,
    global_step: state.step,
    log_history: state.logHistory,
    max_steps: plan.totalSteps,
    num_train_epochs: Math.ceil(plan.totalSteps / plan.stepsPerEpoch),
    num_input_tokens_seen: state.numInputTokens,
    logging_steps: interval("logging", config.logging_steps),
    // transformers' own default, which stays where evaluations do not go by steps.
    eval_steps: interval("eval", 500),
    save_steps: interval("save", config.save_steps),
    stateful_callbacks: {
      ...earlyStoppingCallback(config, state),
      TrainerControl: {
        args: {
          should_epoch_stop: false,
          should_evaluate: false,
          should_log: false,
          should_save: true,
          should_training_stop: isOver,
        },
        attributes: {},
      },
    },
    train_batch_size: config.per_device_train_batch_size,
    total_flos: flosPerToken(run) * state.numInputTokens,
  });
}

/** Patience, threshold and counter as transformers' callback of this name keeps them. */
function earlyStoppingCallback(
  { early_stopping_patience, early_stopping_threshold }: ResolvedConfig,
  { earlyStopping }: CheckpointState,
): Record<string, unknown> {
  if (early_stopping_patience === null) return {};
  return {
    EarlyStoppingCallback: {
      args: { early_stopping_patience, early_stopping_threshold },
      attributes: { early_stopping_patience_counter: earlyStopping?.counter ?? 0 },
    },
  };
}

/**
 * `train_results.json`, `eval_results.json` and both in `all_results.json`, as the Trainer's
 * `save_metrics` writes the closing entry and an evaluation: that of the weights that are saved, which the best of
 * a run may be, else the last. A file without figures is not written.
 *
 * @param step after which the model had these weights
 */
export async function writeResults(
  directory: string,
  history: readonly LogEntry[],
  metered: Pick<Objective, "metrics">,
  step: number,
): Promise<void> {
  const closing = history.findLast((entry) => "train_loss" in entry);
  const withFigure = (key: string): LogEntry | undefined => {
    const entries = history.filter((entry) => key in entry);
    return entries.findLast((entry) => entry["step"] === step) ?? entries.at(-1);
  };
  const evaluation = withFigure("eval_loss");
  const train = closing === undefined ? {} : withoutStep(closing);
  const loss = evaluation?.["eval_loss"];
  const evaluated =
    evaluation === undefined
      ? {}
      : {
          ...withoutStep(evaluation),
          // As transformers' example scripts write it, under its own name.
          ...(typeof loss === "number" ? metricsOf(metered, loss) : {}),
        };
  const general = withFigure(generalKey);
  const forgotten = general === undefined ? {} : withoutStep(general);
  const write = async (name: string, metrics: Readonly<Record<string, unknown>>): Promise<void> => {
    if (Object.keys(metrics).length === 0) return;
    const text = formatPythonJson(metrics, isIntegerField, { indent: 4 });
    await writeFile(join(directory, name), text);
  };
  await write("train_results.json", train);
  await write("eval_results.json", { ...evaluated, ...forgotten });
  await write("all_results.json", { ...train, ...evaluated, ...forgotten });
}

function withoutStep(entry: LogEntry): Record<string, unknown> {
  return Object.fromEntries(Object.entries(entry).filter(([name]) => name !== "step"));
}
