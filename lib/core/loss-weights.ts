import { type BatchField, countTargets, type FieldArray, ignoredTarget } from "./batch.js";

/** Weights are whole multiples of it, so that up to 2^29 of them together are summed exactly in any order. */
const weightStep = 2 ** -24;
export const maxWeight = 1024;

/** The nearest weight that a batch can hold. */
export const exactWeight = (weight: number): number =>
  Math.fround(Math.round(weight / weightStep) * weightStep);

/** How much each target counts in the loss: 1 where a batch has no such field. 0 behind targets that are ignored. */
export const tokenWeightsField: BatchField = { name: "weights", dtype: "float32", perRow: "token" };
/** The same for rows with a label. */
export const rowWeightsField: BatchField = { ...tokenWeightsField, perRow: 1 };

/** What stands in a field of targets where a row has none. */
export const paddingOf = ({ name }: BatchField): number =>
  name === tokenWeightsField.name ? 0 : ignoredTarget;

/**
 * How much the targets of some rows count that are not ignored.
 *
 * @param targets as many for each weight
 * @param weights absent: 1 each
 */
export function sumOfWeights(targets: FieldArray | undefined, weights?: FieldArray): number {
  if (weights === undefined || targets === undefined) return countTargets(targets);
  const perWeight = targets.length / weights.length;
  let sum = 0;
  for (let i = 0; i < targets.length; i++) {
    if ((targets[i] ?? -1) >= 0) sum += weights[Math.floor(i / perWeight)] ?? 0;
  }
  return sum;
}
