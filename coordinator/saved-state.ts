import { isRecord } from "#lib/checkpoint/file-reader";
import { LockstepError } from "#lib/core/errors/index";
import { readEarlyStoppingState } from "#lib/objectives/early-stopping";
import { readLossGapState } from "#lib/objectives/loss-gap";
import { readLossTerms, readScheduleState } from "#lib/optim/index";
import type { CheckpointState } from "./options.js";
import { readAccount } from "./run-account.js";

/**
 * The state of a run that a file holds, of a checkpoint or of a journal.
 *
 * @throws E_JSON_FILE where it is none
 */
export function checkpointStateOf(parsed: unknown, file: string): CheckpointState {
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
    ...withLossScaler(parsed.lossScaler, file),
    ...withSchedule(parsed.schedule, file),
    ...withLossTerms(parsed["lossTerms"], file),
    ...withWatched(parsed, file),
    ...withAccount(parsed.account),
  };
}

/** @throws E_JSON_FILE where it is not that of a run: from the first scale on it would be another one */
function withLossScaler(value: unknown, file: string): Pick<CheckpointState, "lossScaler"> {
  if (value === undefined) return {};
  const { scale, growthTracker } = isRecord(value) ? value : {};
  const isScale = typeof scale === "number" && scale > 0;
  if (isScale && typeof growthTracker === "number" && Number.isSafeInteger(growthTracker)) {
    return { lossScaler: { scale, growthTracker } };
  }
  throw new LockstepError("E_JSON_FILE", { file, problem: "its loss scale is not that of a run" });
}

/** @throws E_JSON_FILE where they are no learnt weights of tasks */
function withLossTerms(value: unknown, file: string): Pick<CheckpointState, "lossTerms"> {
  if (value === undefined) return {};
  const lossTerms = readLossTerms(value);
  if (lossTerms !== undefined) return { lossTerms };
  throw new LockstepError("E_JSON_FILE", { file, problem: "its lossTerms are not those of a run" });
}

/** @throws E_JSON_FILE where it is not what a schedule remembers */
function withSchedule(value: unknown, file: string): Pick<CheckpointState, "schedule"> {
  if (value === undefined) return {};
  const schedule = readScheduleState(value);
  if (schedule !== undefined) return { schedule };
  throw new LockstepError("E_JSON_FILE", { file, problem: "its schedule is not that of a run" });
}

/** @throws E_JSON_FILE where it is not what a run keeps of its evaluations */
function withWatched(
  { earlyStopping, lossGap }: Readonly<Record<string, unknown>>,
  file: string,
): Pick<CheckpointState, "earlyStopping" | "lossGap"> {
  const counted = earlyStopping === undefined ? undefined : readEarlyStoppingState(earlyStopping);
  const compared = lossGap === undefined ? undefined : readLossGapState(lossGap);
  if ((earlyStopping === undefined) !== (counted === undefined)) {
    throw new LockstepError("E_JSON_FILE", {
      file,
      problem: "its earlyStopping is not that of a run",
    });
  }
  if ((lossGap === undefined) !== (compared === undefined)) {
    throw new LockstepError("E_JSON_FILE", { file, problem: "its lossGap is not that of a run" });
  }
  return {
    ...(counted === undefined ? {} : { earlyStopping: counted }),
    ...(compared === undefined ? {} : { lossGap: compared }),
  };
}

function withAccount(value: unknown): Pick<CheckpointState, "account"> {
  const account = readAccount(value);
  return account === undefined ? {} : { account };
}
