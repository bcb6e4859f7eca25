import type { TrainingRows } from "./rows.js";

/** Steps whose rows are sorted by length together, as in transformers' `get_length_grouped_indices`. */
const maxStepsPerGroup = 50;

/**
 * Rows of like length side by side, and still in random order: a permutation is cut into groups of many
 * steps, each sorted from its longest row on. The longest row of all comes first, so that what does not
 * fit shows in the first step.
 */
export function groupByLength(
  order: Uint32Array,
  rows: TrainingRows,
  rowsPerStep: number,
): Uint32Array {
  const steps = Math.min(Math.floor(order.length / (rowsPerStep * 4)), maxStepsPerGroup) || 1;
  const size = steps * rowsPerStep;
  const grouped = new Uint32Array(order.length);
  let longest = 0;
  for (let start = 0; start < order.length; start += size) {
    const group = [...order.subarray(start, start + size)];
    grouped.set(
      group.sort((a, b) => rows.lengthOf(b) - rows.lengthOf(a)),
      start,
    );
    if (rows.lengthOf(grouped[start] ?? 0) > rows.lengthOf(grouped[longest] ?? 0)) longest = start;
  }
  [grouped[0], grouped[longest]] = [grouped[longest] ?? 0, grouped[0] ?? 0];
  return grouped;
}
