import { ignoredTarget, type TokenBatch } from "#lib/core/job";
import type { PackedBlocks } from "./pack.js";

/**
 * Gathers blocks into a batch of static shape. Position i of a row predicts token i + 1 of its block,
 * the last position nothing: the labels of Hugging Face's `labels = input_ids`, shifted. Rows past
 * the given blocks are padding: token 0 throughout, no target.
 *
 * @param blockIndices at most `numRows`
 */
export function gatherBatch(
  blocks: PackedBlocks,
  blockIndices: ArrayLike<number>,
  numRows: number,
): TokenBatch {
  const length = blocks.sequenceLength;
  const tokens = new Int32Array(numRows * length);
  const targets = new Int32Array(numRows * length).fill(ignoredTarget);
  for (let row = 0; row < blockIndices.length; row++) {
    const start = (blockIndices[row] ?? 0) * length;
    tokens.set(blocks.tokens.subarray(start, start + length), row * length);
    targets.set(blocks.tokens.subarray(start + 1, start + length), row * length);
  }
  return { numRows, tokens, targets };
}

/** Targets that a packed row has. */
export function supervisedTokensPerRow(blocks: PackedBlocks): number {
  return blocks.sequenceLength - 1;
}
