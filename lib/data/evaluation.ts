import type { Batch } from "#lib/core/batch";
import { gatherBatch, type TrainingRows } from "./rows.js";

/**
 * All rows in their order, in batches of static shape; the last one is filled up with padding rows,
 * which have no target.
 */
export function evaluationBatches(rows: TrainingRows, evalBatchSize: number): Batch[] {
  const batches: Batch[] = [];
  for (let start = 0; start < rows.numRows; start += evalBatchSize) {
    const numRows = Math.min(evalBatchSize, rows.numRows - start);
    const indices = Array.from({ length: numRows }, (_, row) => start + row);
    batches.push(gatherBatch(rows, indices, evalBatchSize));
  }
  return batches;
}
