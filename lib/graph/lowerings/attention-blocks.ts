// Shape legend: B batch, T tokens, N query heads, K key/value heads, G = N/K, H head width,
// Q queries of a block, S keys that a block sees.
import type { GraphTensor } from "#lib/graph/builder";
import * as op from "#lib/graph/tf-ops";
import { toFloat32 } from "#lib/graph/autocast";
import { xlaFunction, xlaTensor } from "#lib/graph/xla-function";
import type { AttentionBlock } from "#lib/ops/index";

/** Sizes of an attention. */
export interface HeadSizes {
  readonly b: number;
  readonly t: number;
  readonly k: number;
  readonly g: number;
  readonly h: number;
}

/** Rows of the block from [B, K, G, T, W], with the queries that share a key head as one matrix. */
export function queryRows(
  x_BKGTW: GraphTensor,
  { b, k, g }: HeadSizes,
  block: AttentionBlock,
): GraphTensor {
  const width = x_BKGTW.shape[4] as number;
  const rows = op.slice(x_BKGTW, [0, 0, 0, block.start, 0], [b, k, g, block.numQueries, width]);
  return op.reshape(rows, [b, k, g * block.numQueries, width]);
}

export const keyRows = (
  x_BKTH: GraphTensor,
  { b, k, h }: HeadSizes,
  block: AttentionBlock,
): GraphTensor => op.slice(x_BKTH, [0, 0, block.firstKey, 0], [b, k, block.numKeys, h]);

/** [B, T, N, H] to [B, N, T, H] and back. */
export const swapHeads = (x: GraphTensor): GraphTensor => op.transpose(x, [0, 2, 1, 3]);

/**
 * The matrix whose columns x [B, T, N, H] is, and the first of them: GPT-2 projects queries, keys and
 * values at once.
 */
function columnsOf(x: GraphTensor): { readonly source: GraphTensor; readonly column: number } {
  const [rows] = x.node.op === "Reshape" ? x.node.inputs : [];
  const [matrix, begin] = rows?.node.op === "Slice" ? rows.node.inputs : [];
  const [, column] = begin === undefined ? [] : op.constantInts(begin);
  const isColumns = matrix?.shape.length === 2 && matrix.shape[0] === rows?.shape[0];
  return isColumns && column !== undefined ? { source: matrix, column } : { source: x, column: 0 };
}

/** Each [B, T, N, H] as [B, N, T, H]; columns of one matrix are taken apart as they are turned. */
export function splitHeads(xs: readonly GraphTensor[]): readonly GraphTensor[] {
  const parts = xs.map(columnsOf);
  const sources = [...new Set(parts.map(({ source }) => source))];
  return xlaFunction((xs[0] as GraphTensor).node.graph, "SplitHeads", sources, (args) =>
    parts.map(({ source, column }, index) => {
      const arg = args[sources.indexOf(source)] as GraphTensor;
      const { shape } = xs[index] as GraphTensor;
      if (op.sameShape(arg.shape, shape)) return swapHeads(arg);
      const [b, t, n, h] = shape as [number, number, number, number];
      return swapHeads(op.reshape(op.slice(arg, [0, column], [b * t, n * h]), shape));
    }),
  );
}

/** All blocks' rows [B, K, G*Q, H] as [B, T, N, H]. */
export function joinQueryRows(
  parts: readonly GraphTensor[],
  { b, t, k, g, h }: HeadSizes,
  blocks: readonly AttentionBlock[],
): GraphTensor {
  return xlaTensor((parts[0] as GraphTensor).node.graph, "JoinQueryRows", parts, (args) => {
    const rows = args.map((part, index) =>
      op.reshape(part, [b, k, g, (blocks[index] as AttentionBlock).numQueries, h]),
    );
    return swapHeads(op.reshape(op.concat(rows, 3), [b, k * g, t, h]));
  });
}

/** The sum, in float32, of what each block gives its keys, [B, K, S, H], as [B, T, K, H]. */
export function sumKeyRows(
  parts: readonly GraphTensor[],
  { b, t, k, h }: HeadSizes,
  blocks: readonly AttentionBlock[],
): GraphTensor {
  const { node, dtype } = parts[0] as GraphTensor;
  return xlaTensor(node.graph, "SumKeyRows", parts, (args) => {
    const ranges = keyRanges(t, blocks).map(({ start, end }) =>
      blocks
        .flatMap((block, index) => {
          const from = start - block.firstKey;
          if (from < 0 || from >= block.numKeys) return [];
          const part = args[index] as GraphTensor;
          return [toFloat32(op.slice(part, [0, 0, from, 0], [b, k, end - start, h]))];
        })
        .reduce((total, term) => op.add(total, term)),
    );
    return swapHeads(op.cast(op.concat(ranges, 2), dtype));
  });
}

/** The tokens, cut wherever the keys of a block begin or end: each range is seen whole or not at all. */
function keyRanges(numTokens: number, blocks: readonly AttentionBlock[]) {
  const cuts = new Set([0, numTokens]);
  for (const { firstKey, numKeys } of blocks) cuts.add(firstKey).add(firstKey + numKeys);
  const sorted = [...cuts].sort((a, b) => a - b);
  return sorted.slice(1).map((end, index) => ({ start: sorted[index] as number, end }));
}
