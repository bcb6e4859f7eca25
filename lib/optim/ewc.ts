import type { ParameterLayout } from "#lib/core/parameter-layout";
import { LockstepError } from "#lib/core/errors/index";

/** Arrays of elastic weight consolidation beside those that an optimizer keeps: what weights weigh, and where they were. */
export const fisherSlot = "ewc_fisher";
export const anchorSlot = "ewc_anchor";

/** Shards whose summed gradient a penalty is added to. */
export interface PenalisedShards {
  /**
   * Adds `factor * F * (masters - anchor)` to the step's gradient, once, after `reduce`.
   *
   * @returns of all blocks of the space, in block order: the fp64 sums of squares of what the gradient is then, and
   *   of `F * (masters - anchor)^2`
   */
  penalise(
    step: number,
    factor: number,
  ): Promise<{ readonly squares: Iterable<number>; readonly distances: Iterable<number> }>;
}

/** The penalty of EWC, lambda / 2 of the summed distances, added in block order. */
export function penaltyOf(lambda: number, distances: Iterable<number>): number {
  let sum = 0;
  for (const distance of distances) sum += distance;
  return (lambda / 2) * sum;
}

/** Shards that hold sums of squared gradients of rows. */
export interface MeasuredShards {
  /** fp64 sums of the squares of all blocks of the space, in block order. */
  fisherSums(): Promise<Iterable<number>>;
  /** Ends the measurement: F is the sums times `scale`, the anchor the masters of now. */
  finishFisher(scale: number): Promise<void>;
}

/** How rows and a normalisation make F of summed squares. */
interface FisherScaling {
  readonly numRows: number;
  /** F has the mean 1 over what is trained, whatever the rows. */
  readonly normalises: boolean;
}

/**
 * Makes the Fisher information of what the shards summed over the rows: their mean, or that divided by its own mean
 * over all trained elements.
 *
 * @returns the mean over rows and elements, before it is normalised
 * @throws E_FISHER_UNUSABLE where a gradient was not finite, or all were 0
 */
export async function finishFisher(
  shards: MeasuredShards,
  { tensors }: ParameterLayout,
  { numRows, normalises }: FisherScaling,
): Promise<number> {
  let sum = 0;
  for (const ofBlock of await shards.fisherSums()) sum += ofBlock;
  const numElements = tensors.reduce((count, { size }) => count + size, 0);
  const mean = sum / numRows / numElements;
  const refuse = (got: string): never => {
    throw new LockstepError("E_FISHER_UNUSABLE", { numRows, got });
  };
  if (mean === 0) refuse("all of their gradients are 0");
  if (!Number.isFinite(mean)) refuse("one of their gradients is not finite");
  // The shards multiply in float32, where this must be finite too.
  const scale = normalises ? numElements / sum : 1 / numRows;
  if (!Number.isFinite(Math.fround(scale))) {
    refuse(`the mean of their squares, ${mean.toExponential(3)}, is nearly 0`);
  }
  await shards.finishFisher(scale);
  return mean;
}
