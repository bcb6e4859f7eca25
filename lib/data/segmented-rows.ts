import { hasField, inputFields, lengthField } from "#lib/core/batch";
import type { TracedRows } from "./rows.js";

/**
 * Rows that carry segments: those that have none are one segment each, from its first position on. What a model
 * computes of them is the same, and they go into batches beside rows that several examples share.
 */
export function segmentedRows(rows: TracedRows): TracedRows {
  if (hasField(rows.inputs, "segments")) return rows;
  return {
    ...rows,
    inputs: [
      ...inputFields({ hasSegments: true }),
      ...rows.inputs.filter(({ name }) => name === lengthField.name),
    ],
    write(row, into) {
      rows.write(row, into);
      const length = rows.lengthOf(row);
      into.segments?.fill(1, 0, length);
      for (let i = 0; i < length; i++) if (into.positions !== undefined) into.positions[i] = i;
    },
  };
}
