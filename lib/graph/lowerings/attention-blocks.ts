// Shape legend: B batch, T tokens, N query heads, K key/value heads, G = N/K, H head width,
// Q queries of a block, S keys that a block sees.
import type { GraphTensor } from "#lib/graph/builder";
import * as op from "#lib/graph/tf-ops";
import { toFloat32 } from "#lib/graph/autocast";
import { xlaTensor } from "#lib/graph/xla-function";
import type { AttentionAttrs } from "#lib/ops/index";

/** Queries in a block: keys that no query of a block may see are skipped block by block. */
export const blockQueries = 256;

/** Sizes of an attention. */
export interface HeadSizes {
  readonly b: number;
  readonly t: number;
  readonly k: number;
  readonly g: number;
  readonly h: number;
}

/** Neighbouring queries and the keys that some of them see. */
export interface Block {
  readonly start: number;
  readonly numQueries: number;
  /** Keys firstKey to firstKey + numKeys - 1 are seen by some query of the block. */
  readonly firstKey: number;
  readonly numKeys: number;
}

export function blocksOf(numTokens: number, { causal, window }: AttentionAttrs): readonly Block[] {
  const numBlocks = Math.ceil(numTokens / blockQueries);
  return Array.from({ length: numBlocks }, (_, index) => {
    const start = index * blockQueries;
    const numQueries = Math.min(blockQueries, numTokens - start);
    const end = start + numQueries;
    const firstKey = window === 0 ? 0 : Math.max(0, start - window + 1);
    const lastKey = window === 0 ? numTokens : Math.min(numTokens, end + window - 1);
    return { start, numQueries, firstKey, numKeys: (causal ? end : lastKey) - firstKey };
  });
}

/** Rows of the block from [B, K, G, T, W], with the queries that share a key head as one matrix. */
export function queryRows(x_BKGTW: GraphTensor, { b, k, g }: HeadSizes, block: Block): GraphTensor {
  const width = x_BKGTW.shape[4] as number;
  const rows = op.slice(x_BKGTW, [0, 0, 0, block.start, 0], [b, k, g, block.numQueries, width]);
  return op.reshape(rows, [b, k, g * block.numQueries, width]);
}

export const keyRows = (x_BKTH: GraphTensor, { b, k, h }: HeadSizes, block: Block): GraphTensor =>
  op.slice(x_BKTH, [0, 0, block.firstKey, 0], [b, k, block.numKeys, h]);

/** All blocks' rows [B, K, G*Q, H] as [B, T, N, H]. */
export function joinQueryRows(
  parts: readonly GraphTensor[],
  { b, t, k, g, h }: HeadSizes,
  blocks: readonly Block[],
): GraphTensor {
  const rows = parts.map((part, index) =>
    op.reshape(part, [b, k, g, (blocks[index] as Block).numQueries, h]),
  );
  return op.transpose(op.reshape(op.concat(rows, 3), [b, k * g, t, h]), [0, 2, 1, 3]);
}

/** The sum, in float32, of what each block gives its keys, [B, K, S, H], as [B, T, K, H]. */
export function sumKeyRows(
  parts: readonly GraphTensor[],
  { b, t, k, h }: HeadSizes,
  blocks: readonly Block[],
): GraphTensor {
  const graph = (parts[0] as GraphTensor).node.graph;
  const dtype = (parts[0] as GraphTensor).dtype;
  const sum_BKTH = xlaTensor(graph, "SumKeyRows", parts, (args) =>
    op.cast(
      op.concat(
        keyRanges(t, blocks).map(({ start, end }) =>
          blocks
            .flatMap((block, index) => {
              const from = start - block.firstKey;
              if (from < 0 || from >= block.numKeys) return [];
              const part = args[index] as GraphTensor;
              return [toFloat32(op.slice(part, [0, 0, from, 0], [b, k, end - start, h]))];
            })
            .reduce((total, term) => op.add(total, term)),
        ),
        2,
      ),
      dtype,
    ),
  );
  return op.transpose(sum_BKTH, [0, 2, 1, 3]);
}

/** The tokens, cut wherever the keys of a block begin or end: each range is seen whole or not at all. */
function keyRanges(numTokens: number, blocks: readonly Block[]) {
  const cuts = new Set([0, numTokens]);
  for (const { firstKey, numKeys } of blocks) cuts.add(firstKey).add(firstKey + numKeys);
  const sorted = [...cuts].sort((a, b) => a - b);
  return sorted.slice(1).map((end, index) => ({ start: sorted[index] as number, end }));
}
