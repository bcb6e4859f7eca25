import type { ShardStage, ShardStatus } from "#lib/wire/reducer-messages";

/** How far a step is that was opened. */
const ranks: Readonly<Record<ShardStage, number>> = {
  none: 0,
  open: 1,
  reduced: 2,
  applied: 3,
  discarded: 3,
  kept: 3,
};

/** From what was done last to what was done first. */
const placeOf = ({
  isLoaded,
  isFisherFinished,
  version = -1,
  step = -1,
  stage,
}: ShardStatus): readonly number[] => [
  ...[Number(isLoaded), Number(isFisherFinished)],
  ...[step, ranks[stage], version],
];

/** Whether a copy of a shard has done less than another one of the same run. */
export function isBehind(one: ShardStatus, other: ShardStatus): boolean {
  const [place, otherPlace] = [placeOf(one), placeOf(other)];
  const differs = place.findIndex((value, index) => value !== otherPlace[index]);
  return differs >= 0 && (place[differs] ?? 0) < (otherPlace[differs] ?? 0);
}

/**
 * Whether the step in progress, begun again, brings a copy to where one that has done as much or more is: both are at the
 * same call of it or one after the other, or the one has opened it where the other has ended the one before.
 */
export function followsFrom(ahead: ShardStatus, behind: ShardStatus): boolean {
  const { stage, step = -1, numSquaresKept: kept } = ahead;
  const { stage: before, step: stepBefore = -1 } = behind;
  const isLast = stage === "applied" && before === "reduced";
  const isSameVersion = ahead.version === behind.version || isLast;
  const isSameFisher =
    ahead.isFisherFinished === behind.isFisherFinished &&
    (kept === behind.numSquaresKept || (stage === "kept" && before === "reduced"));
  const isInStep = step === stepBefore && ranks[stage] - ranks[before] <= 1;
  const isOver = ranks[before] === 0 || ranks[before] === 3;
  const hasOpened = step === stepBefore + 1 && stage === "open" && isOver;
  return (
    ahead.isLoaded === behind.isLoaded && isSameVersion && isSameFisher && (isInStep || hasOpened)
  );
}
