import { lengthField } from "#lib/core/batch";
import type { TracedRows } from "./rows.js";

/** Rows that tell how many tokens they have, or the longer answer of a pair, which batches carry for what depends on it. */
export const rowsWithLengths = (rows: TracedRows): TracedRows => ({
  ...rows,
  inputs: [...rows.inputs, lengthField],
  write(row, into) {
    rows.write(row, into);
    into.lengths?.fill(rows.longestOf?.(row) ?? rows.lengthOf(row));
  },
});
