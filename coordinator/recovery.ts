import type { CoordinatorOptions } from "./options.js";
import type { ShardStatus } from "#lib/wire/reducer-messages";
import type { RecoveredRun } from "./run-state.js";

/**
 * Why shards are not where a coordinator that died had come to, for a person; undefined where they all are. They may
 * have done the step that was agreed on, each for itself: they are asked for it again.
 */
export function apartFrom(
  { state, agreed, keepsBest = false }: RecoveredRun,
  statuses: readonly ShardStatus[],
  { fisher }: Pick<CoordinatorOptions, "fisher">,
): string | undefined {
  const { step, numUpdates } = state.checkpoint;
  const isMeasuring = fisher !== undefined && step === 0 && !state.fisher.isDone;
  for (const [shard, status] of statuses.entries()) {
    const is = (where: string): string => `shard ${shard} ${where}`;
    if (!status.isLoaded) return is("holds nothing of it");
    if (isMeasuring) {
      const { numRounds } = state.fisher;
      const isDone = agreed?.isMeasurement === true && agreed.step === numRounds;
      const most = isDone ? numRounds + 1 : numRounds;
      const { numSquaresKept: kept } = status;
      if (kept < numRounds || kept > most) return is(`has measured ${kept} rounds of ${numRounds}`);
      continue;
    }
    const mayBeMade = agreed?.isMeasurement === false && agreed.step === step;
    const version = status.version ?? -1;
    const isMade = mayBeMade && version === numUpdates + 1;
    if (isMade && keepsBest) return is("does not have the best weights any more");
    const isVersion = version === numUpdates || isMade;
    if (!isVersion) return is(`has ${version} updates, and the run has made ${numUpdates}`);
    const isOpened = status.step === step;
    if (status.step !== undefined && status.step > step) return is(`is at step ${status.step + 1}`);
    if (mayBeMade && !isOpened) return is(`knows nothing of step ${step + 1}`);
    const isOpen = status.stage === "open" || status.stage === "reduced";
    if (isOpened && !isOpen && !mayBeMade) return is(`has ended step ${step + 1}`);
    if (!isOpened && isOpen) return is(`is in the middle of step ${(status.step ?? 0) + 1}`);
  }
  return undefined;
}
