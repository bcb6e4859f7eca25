import type { UpdatedShards } from "#lib/optim/index";
import type { ShardGroup } from "./shards.js";
import type { TrainingStep } from "./training-step.js";

/**
 * The sums of a step whose groups are all there.
 *
 * @param again called where a shard was lost with groups and another process goes on with what it kept: has workers
 *   send all groups again
 */
export async function wholeSums(
  shards: Pick<ShardGroup, "reduce">,
  step: number,
  again: () => Promise<void>,
): Promise<Float64Array> {
  for (;;) {
    const sums = await shards.reduce(step);
    if (sums !== undefined) return sums;
    await again();
  }
}

/**
 * Has the groups of a step sent again that were all there.
 *
 * @param work what workers did; undefined where that was for a coordinator that died
 */
export async function begunAgain(
  shards: Pick<ShardGroup, "restartStep">,
  step: number,
  work: TrainingStep | undefined,
  newWork: () => TrainingStep,
): Promise<TrainingStep> {
  if (work === undefined) {
    await shards.restartStep(step);
    return newWork();
  }
  await work.beginAgain();
  return work;
}

/** Shards as an update calls them. @param again as of {@link wholeSums} */
export const updatedShards = (shards: ShardGroup, again: () => Promise<void>): UpdatedShards => ({
  reduce: (step) => wholeSums(shards, step, again),
  penalise: (step, factor) => shards.penalise(step, factor),
  measure: (step, measurement) => shards.measure(step, measurement),
  apply: (step, update) => shards.apply(step, update),
  discard: (step) => shards.discard(step),
});
