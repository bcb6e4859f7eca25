import type { Batch } from "#lib/core/batch";
import type { PackedBlocks } from "./pack.js";
import { gatherBatch, isTrainingRows, rowsOfBlocks, type TrainingRows } from "./rows.js";

/**
 * All blocks in their order, in batches of static shape; the last one is filled up with rows that
 * have no target.
 */
export function evaluationBatches(
  blocks: PackedBlocks | TrainingRows,
  evalBatchSize: number,
): Batch[] {
  const rows = isTrainingRows(blocks) ? blocks : rowsOfBlocks(blocks);
  const batches: Batch[] = [];
  for (let start = 0; start < rows.numBlocks; start += evalBatchSize) {
    const numRows = Math.min(evalBatchSize, rows.numBlocks - start);
    const indices = Array.from({ length: numRows }, (_, row) => start + row);
    batches.push(gatherBatch(rows, indices, evalBatchSize));
  }
  return batches;
}
