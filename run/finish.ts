import { existsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { awakeMs } from "#lib/core/awake-clock";
import type { CheckpointState, Snapshot } from "#coordinator/options";
import { checkpointName } from "#lib/checkpoint/index";
import {
  failedSaveEvent,
  failedSaveLine,
  isWriteFailure,
  saveRepeatedly,
} from "#lib/checkpoint/repeated-save";
import { LockstepError } from "#lib/core/errors/index";
import { isStoreUrl } from "#lib/store/location";
import type { InProcessEventBus } from "#lib/wire/event-bus";
import { stoppedEarly } from "./evaluation-rules.js";
import { stateFile } from "./checkpoint-files.js";
import { checkpointPlace } from "./checkpoint-place.js";
import { markFinished, saveFinalModel } from "./files.js";
import type { PushResult } from "./push.js";
import { bestCheckpoint } from "./results.js";
import type { RunResult } from "./run-handle.js";
import type { StartedRun } from "./start.js";

/** Weights of an evaluation, where a run keeps them itself and has no checkpoint of them. */
export interface BestWeights {
  readonly step: number;
  readonly numUpdates: number;
  readonly snapshot: Snapshot;
}

/** What training came to. */
interface TrainingOutcome {
  readonly outcome: "finished" | "interrupted";
  /** Whether nothing is left to do: a stop after the last step leaves its evaluation. */
  readonly isWhole: boolean;
  readonly snapshot: Snapshot;
  /** Those of the best evaluation, which are the result then. */
  readonly best?: BestWeights;
  readonly state: CheckpointState;
  readonly mastersSha256: string;
  readonly seconds: number;
}

/**
 * Saves the result of a run that made all its steps, pushes it where that is asked for, remembers that
 * nothing is left to do, and tells the bus how it ended.
 *
 * @param directory of what a run that made no step, or was stopped, left
 * @throws E_NO_UPDATE, E_NON_FINITE_WEIGHTS before anything is saved; E_HUB_PUSH and others of the push, after all
 *   the rest
 */
export async function finishRun(
  run: StartedRun,
  { outcome, isWhole, snapshot, best, state, mastersSha256, seconds }: TrainingOutcome,
  {
    push,
    ...parts
  }: {
    readonly bus: InProcessEventBus;
    readonly push: PushResult | undefined;
    readonly directory: string;
  },
): Promise<RunResult & { readonly directory: string }> {
  const { bus } = parts;
  const { step } = state;
  let { directory } = parts;
  const tell = (detail: string): void =>
    bus.publish({ type: "phase.changed", phase: "saving", detail });
  let bestStep: number | undefined;
  let pushed: { readonly value?: string; readonly error?: unknown } | undefined;
  if (outcome === "finished") {
    if (step > 0 && state.numUpdates === 0) {
      throw new LockstepError("E_NO_UPDATE", { numSteps: step });
    }
    const kept = directory;
    const whileRefused = <T>(action: () => Promise<T>): Promise<T> =>
      saveResult(run, { state, directory: kept, bus }, action);
    bestStep = best?.step ?? (await whileRefused(() => savedBestStep(run, state)));
    const detail = savingDetail(run, state, bestStep);
    tell(detail);
    const isOther = run.config.load_best_model_at_end && bestStep === undefined;
    if (isOther) bus.publish({ type: "note", text: `warning: ${detail}` });
    const startedAt = performance.now();
    const weights = best ?? { ...state, snapshot };
    const saved = await whileRefused(() => saveFinalModel(run, weights, state));
    const savedSeconds = (performance.now() - startedAt) / 1000;
    directory = saved.directory;
    const { relayedBytes, ...where } = saved;
    bus.publish({
      ...{ type: "checkpoint.saved", step, seconds: savedSeconds, ...where },
      ...(relayedBytes === 0 ? {} : { relayedBytes }),
    });
    pushed = push === undefined ? undefined : await attempt(() => push(tell));
    if (pushed?.value !== undefined) tell(`pushed to ${pushed.value}`);
    // What was not pushed is left to do.
    if (pushed?.error === undefined && isWhole) {
      const marked = await attempt(() => markFinished(run, state, mastersSha256));
      if (marked.error !== undefined) tell(`not marked as finished: ${messageOf(marked.error)}`);
    }
  } else if (push !== undefined) {
    tell("nothing is pushed to the hub, since the run is not finished");
  }
  const result = { outcome, step, directory, mastersSha256, seconds };
  const stop = outcome === "finished" ? stoppedEarly(run, state) : undefined;
  bus.publish({
    ...{ type: "run.completed", ...result },
    ...(stop === undefined ? {} : { stoppedEarly: stop }),
    ...(bestStep === undefined ? {} : { bestStep }),
  });
  // The result is there all the same, and was told of.
  if (pushed?.error !== undefined) throw pushed.error;
  return result;
}

/**
 * Saves the result, or looks for what it takes, and repeats that while the file system or a store refuses it, for as
 * long as `save_retry_ms` says.
 *
 * @throws E_SAVE_FAILED
 */
async function saveResult<T>(
  run: StartedRun,
  {
    state,
    directory,
    bus,
  }: Pick<TrainingOutcome, "state"> & {
    readonly directory: string;
    readonly bus: InProcessEventBus;
  },
  action: () => Promise<T>,
): Promise<T> {
  const { step } = state;
  const startedAt = performance.now();
  const giveUpAtMs = awakeMs() + run.config.save_retry_ms;
  try {
    return await saveRepeatedly(action, {
      giveUpAtMs: () => giveUpAtMs,
      pause: (ms) => delay(ms),
      onFailure: (failure) => {
        bus.publish(failedSaveEvent(step, failure));
        const text = failedSaveLine("the result", failure);
        if (text !== undefined) bus.publish({ type: "note", text });
      },
    });
  } catch (error) {
    if (!isWriteFailure(error)) throw error;
    const seconds = Math.round((performance.now() - startedAt) / 1000);
    const reason = error.message;
    const isKept = isStoreUrl(directory) || existsSync(join(directory, stateFile));
    const kept = isKept ? directory : undefined;
    throw new LockstepError(
      "E_SAVE_FAILED",
      { what: "The result", step, seconds, reason, kept },
      { cause: error },
    );
  }
}

/** Where what a run of a cluster computed is, before its result is saved. */
export async function savedSoFar(
  run: StartedRun,
  step: number,
  resumed: { readonly step: number; readonly directory: string } | undefined,
): Promise<string> {
  // A run that made no step saved nothing: its weights are still those that it started from.
  return step > (resumed?.step ?? 0)
    ? (await checkpointPlace(run.config)).directoryOf(checkpointName(step))
    : (resumed?.directory ?? run.model.directory);
}

async function attempt<T>(
  action: () => Promise<T>,
): Promise<{ readonly value?: T; readonly error?: unknown }> {
  try {
    return { value: await action() };
  } catch (error) {
    return { error };
  }
}

const messageOf = (error: unknown): string =>
  error instanceof Error ? error.message : String(error);

/** Of the best evaluation, where its weights are to be the result and their checkpoint is there. */
async function savedBestStep(run: StartedRun, state: CheckpointState): Promise<number | undefined> {
  if (!run.config.load_best_model_at_end || state.best === undefined) return undefined;
  return (await bestCheckpoint(run, state)) === undefined ? undefined : state.best.step;
}

/** @param bestStep of the evaluation whose weights are the result; undefined where it is the last weights */
function savingDetail(
  run: StartedRun,
  state: CheckpointState,
  bestStep: number | undefined,
): string {
  if (!run.config.load_best_model_at_end) return "writing the model";
  if (bestStep !== undefined) return `writing the best model, that of step ${bestStep}`;
  if (state.best === undefined) {
    return "writing the last model: no evaluation tells which is the best (load_best_model_at_end)";
  }
  const { step } = state.best;
  const nor = run.resumedFrom === undefined ? "" : ` and not beside ${run.resumedFrom}`;
  return `writing the last model: the best one, that of step ${step}, is not in ${run.config.checkpoint_store ?? run.config.output_dir}${nor}`;
}
