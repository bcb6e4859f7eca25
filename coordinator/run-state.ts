import { isRecord } from "#lib/checkpoint/file-reader";
import { LockstepError } from "#lib/core/errors/index";
import type { Metrics } from "#lib/core/events";
import type { LossSum } from "#lib/core/job";
import type { TensorStates } from "#lib/core/shard-arrays";
import type { SkippedSteps } from "#lib/optim/index";
import type { CheckpointState, EvaluationResult, GeneratedSample } from "./options.js";
import type { HistorySession } from "./run-history.js";
import { checkpointStateOf } from "./saved-state.js";

/** All that a coordinator knows of its run between two steps, beside what is large and lies in the shards. */
export interface RunState {
  readonly checkpoint: CheckpointState;
  readonly skipped: SkippedSteps;
  readonly session: HistorySession;
  /** Of this session. */
  readonly evaluations: readonly EvaluationResult[];
  readonly samples: readonly GeneratedSample[];
  /** Whose save has begun last. */
  readonly savedStep: number;
  readonly fisher: FisherProgress;
  /** Of the devices that the run computes on; absent: none has computed yet. */
  readonly deviceKind?: string;
}

/** How far the measurement of the Fisher information has come. */
export interface FisherProgress {
  readonly numRounds: number;
  readonly isDone: boolean;
}

/** What workers computed of a step or of a round of a measurement, and agreed on, before shards use it. */
export interface AgreedStep {
  readonly step: number;
  readonly isMeasurement: boolean;
  /** Of the loss's terms. */
  readonly sums: readonly LossSum[];
  readonly metrics?: Metrics;
  /** Since the step began. */
  readonly seconds: number;
}

/** What a coordinator that goes on in the place of one that died knows of the run. */
export interface RecoveredRun {
  readonly state: RunState;
  readonly tensorStates: TensorStates;
  /** The step that was agreed on, and may be in the shards' weights or not. */
  readonly agreed?: AgreedStep;
  /** Whether a save was lost with the coordinator that had begun it. */
  readonly savesAtOnce?: boolean;
  /** Whether that was of the best weights so far, which the shards still have: they are saved before they change. */
  readonly keepsBest?: boolean;
}

/** @throws E_JSON_FILE for what is none */
export function runStateOf(value: unknown, file: string): RunState {
  const refuse = (what: string): LockstepError =>
    new LockstepError("E_JSON_FILE", { file, problem: `its ${what} is not that of a run` });
  if (!isRecord(value)) throw refuse("state");
  const checkpoint = checkpointStateOf(value["checkpoint"], file);
  const { skipped, session, evaluations, samples, savedStep, fisher, deviceKind } = value;
  if (!isRecord(skipped) || !areCounts(skipped["inARow"], skipped["unscaled"])) {
    throw refuse("skipped");
  }
  if (
    !isRecord(session) ||
    !areCounts(session["numSteps"], session["numRows"], session["tokensBefore"]) ||
    ![session["seconds"], session["secondsBefore"]].every(Number.isFinite)
  ) {
    throw refuse("session");
  }
  const isEvaluation = (each: unknown): boolean =>
    isRecord(each) &&
    areCounts(each["step"]) &&
    [each["loss"], each["weight"], each["seconds"]].every((one) => typeof one === "number") &&
    isRecord(each["metrics"]);
  if (!Array.isArray(evaluations) || !evaluations.every(isEvaluation)) throw refuse("evaluations");
  const isSample = (each: unknown): boolean => isRecord(each) && areCounts(each["step"]);
  if (!Array.isArray(samples) || !samples.every(isSample)) throw refuse("samples");
  if (!areCounts(savedStep)) throw refuse("savedStep");
  if (
    !isRecord(fisher) ||
    !areCounts(fisher["numRounds"]) ||
    typeof fisher["isDone"] !== "boolean"
  ) {
    throw refuse("fisher");
  }
  if (deviceKind !== undefined && typeof deviceKind !== "string") throw refuse("deviceKind");
  return { ...(value as unknown as RunState), checkpoint };
}

/** @throws E_JSON_FILE for what is none */
export function agreedStepOf(value: unknown, file: string): AgreedStep {
  const isSum = (sum: unknown): boolean =>
    isRecord(sum) && typeof sum["lossSum"] === "number" && typeof sum["weight"] === "number";
  if (
    isRecord(value) &&
    areCounts(value["step"]) &&
    typeof value["isMeasurement"] === "boolean" &&
    typeof value["seconds"] === "number" &&
    Array.isArray(value["sums"]) &&
    value["sums"].every(isSum) &&
    (value["metrics"] === undefined || isRecord(value["metrics"]))
  ) {
    return value as unknown as AgreedStep;
  }
  throw new LockstepError("E_JSON_FILE", { file, problem: "a step in it is not that of a run" });
}

const areCounts = (...values: readonly unknown[]): boolean =>
  values.every((value) => Number.isSafeInteger(value) && Number(value) >= 0);
