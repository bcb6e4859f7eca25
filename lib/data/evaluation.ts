import type { TokenBatch } from "#lib/core/job";
import { gatherBatch } from "./batch.js";
import type { PackedBlocks } from "./pack.js";

/**
 * All blocks in their order, in batches of static shape; the last one is filled up with rows that
 * have no target.
 */
export function evaluationBatches(blocks: PackedBlocks, evalBatchSize: number): TokenBatch[] {
  const batches: TokenBatch[] = [];
  for (let start = 0; start < blocks.numBlocks; start += evalBatchSize) {
    const numRows = Math.min(evalBatchSize, blocks.numBlocks - start);
    const indices = Array.from({ length: numRows }, (_, row) => start + row);
    batches.push(gatherBatch(blocks, indices, evalBatchSize));
  }
  return batches;
}
