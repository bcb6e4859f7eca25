// Shape legend: B batch, K key/value heads, G = query heads of a key head, Q queries of a block,
// S keys that a block sees.
import { type Autocast, toFloat32 } from "#lib/graph/autocast";
import type { GraphBuilder, GraphDtype, GraphTensor } from "#lib/graph/builder";
import { hasWideSoftmax } from "#lib/graph/bf16-kernels";
import * as op from "#lib/graph/tf-ops";
import { xlaFunction, xlaTensor } from "#lib/graph/xla-function";
import { type AttentionAttrs, type AttentionBlock, hiddenScore } from "#lib/ops/index";
import { swapHeads } from "./attention-blocks.js";
import { masked, type MaskBits } from "./dropout.js";

/** Segments of a block's queries, int32 [B, Q], and of its keys, int32 [B, S]. */
interface BlockSegments {
  readonly queries: GraphTensor;
  readonly keys: GraphTensor;
}

/** Scores in float32, with the tanh behind them where they are capped. */
function cappedScores(product: GraphTensor, { scale, softcap }: AttentionAttrs) {
  const graph = product.node.graph;
  const scaled = op.mul(toFloat32(product), op.scalar(graph, scale));
  if (softcap === 0) return { scores: scaled, tanh: undefined };
  const cap = op.scalar(graph, softcap);
  const tanh = op.unary("Tanh", op.div(scaled, cap));
  return { scores: op.mul(tanh, cap), tanh };
}

const both = (a: GraphTensor | undefined, b: GraphTensor | undefined): GraphTensor | undefined =>
  a === undefined || b === undefined ? (a ?? b) : op.logical("LogicalAnd", a, b);

/** Bool [Q, S] of the keys that positions let a query see; absent where they hide nothing. */
function visibleByPosition(
  graph: GraphBuilder,
  { start, numQueries, firstKey, numKeys }: AttentionBlock,
  { causal, window }: AttentionAttrs,
): GraphTensor | undefined {
  const range = (length: number): Int32Array => Int32Array.from({ length }, (_, i) => i);
  const keys = op.constant(graph, range(numKeys), "int32", [1, numKeys]);
  // Positions counted from the first key: blocks that look alike are one function.
  const queries = op.constant(
    graph,
    range(numQueries).map((i) => i + start - firstKey),
    "int32",
    [numQueries, 1],
  );
  const past = causal ? op.lessEqual(keys, queries) : undefined;
  if (window === 0) return past;
  const near = op.less(op.unary("Abs", op.sub(queries, keys)), op.intScalar(graph, window));
  return both(past, near);
}

/**
 * The type of scores before their softmax: float32, for with bfloat16 inside the softmax of a long row
 * loses its tail. Where a bfloat16 kernel is float32 inside and scaling rounds nothing, scores may stay
 * as the product rounded them: the same bits with half the memory.
 */
const scoresDtype = (
  { xla }: Autocast,
  { dtype }: GraphTensor,
  { scale, softcap }: AttentionAttrs,
): GraphDtype =>
  softcap === 0 && Number.isInteger(Math.log2(scale)) && xla !== true && hasWideSoftmax(dtype)
    ? dtype
    : "float32";

/**
 * softmax(scale * product + mask) of a block, in the type of the product.
 *
 * @param product [B, K, G*Q, S], queries times keys
 */
export function probabilities(
  autocast: Autocast,
  product: GraphTensor,
  block: AttentionBlock,
  attrs: AttentionAttrs,
  segments: BlockSegments | undefined,
): GraphTensor {
  const [b, k, rows, s] = product.shape as [number, number, number, number];
  const q = block.numQueries;
  const dtype = scoresDtype(autocast, product, attrs);
  const operands = [product, ...(segments === undefined ? [] : [segments.queries, segments.keys])];
  const scores = xlaTensor(product.node.graph, "AttentionScores", operands, (args) => {
    const [body, querySegments, keySegments] = args as [GraphTensor, GraphTensor?, GraphTensor?];
    const graph = body.node.graph;
    const ofSegment =
      querySegments &&
      keySegments &&
      op.equal(
        op.reshape(querySegments, [b, 1, 1, q, 1]),
        op.reshape(keySegments, [b, 1, 1, 1, s]),
      );
    const all = op.reshape(cappedScores(body, attrs).scores, [b, k, rows / q, q, s]);
    const visible = both(visibleByPosition(graph, block, attrs), ofSegment);
    const masked = visible ? op.select(visible, all, op.scalar(graph, hiddenScore)) : all;
    return op.cast(op.reshape(masked, product.shape), dtype);
  });
  return op.cast(op.softmax(scores), product.dtype);
}

/**
 * The gradient of a block's products: scale * p * (dp - rowDot), behind a softcap times 1 - tanh^2.
 *
 * @param p_BKRS probabilities
 * @param dp_BKRS their gradient; with dropout that of the dropped ones
 * @param rowDot_BKR1 float32, the sum over keys of p * dp
 * @param product_BKRS queries times keys
 */
export function scoreGradient(
  p_BKRS: GraphTensor,
  dp_BKRS: GraphTensor,
  rowDot_BKR1: GraphTensor,
  product_BKRS: GraphTensor,
  attrs: AttentionAttrs,
  mask?: MaskBits,
): GraphTensor {
  const products = attrs.softcap === 0 ? [] : [product_BKRS];
  const operands = [p_BKRS, dp_BKRS, rowDot_BKR1, ...products];
  const bits = mask === undefined ? [] : [mask.halves];
  return xlaTensor(p_BKRS.node.graph, "AttentionScoreGrad", [...operands, ...bits], (args) => {
    const [p, dDropped, rowDot] = args as [GraphTensor, GraphTensor, GraphTensor];
    const product = products.length === 0 ? undefined : args[3];
    const graph = p.node.graph;
    const dp =
      mask === undefined
        ? toFloat32(dDropped)
        : masked(dDropped, { ...mask, halves: args[operands.length] as GraphTensor });
    const centred = op.sub(dp, rowDot);
    const dCapped = op.mul(op.mul(toFloat32(p), centred), op.scalar(graph, attrs.scale));
    const tanh = product === undefined ? undefined : cappedScores(product, attrs).tanh;
    const dScores =
      tanh === undefined
        ? dCapped
        : op.mul(dCapped, op.sub(op.scalar(graph, 1), op.unary("Square", tanh)));
    return op.cast(dScores, p_BKRS.dtype);
  });
}

/**
 * The gradient of the output by head, [B, N, T, H], and the sum over H of dy * out, float32
 * [B, N, T, 1]: equal to the sum over keys of p * dp.
 */
export function outputGradient(dy_BTNH: GraphTensor, out_BTNH: GraphTensor) {
  const operands = [dy_BTNH, out_BTNH];
  const [dy_BNTH, rowDots_BNT1] = xlaFunction(
    dy_BTNH.node.graph,
    "AttentionOutputGrad",
    operands,
    (args) => {
      const [dy, out] = args as [GraphTensor, GraphTensor];
      const products = op.mul(toFloat32(dy), toFloat32(out));
      return [swapHeads(dy), swapHeads(op.reduce("Sum", products, [3], true))];
    },
  ) as [GraphTensor, GraphTensor];
  return { dy_BNTH, rowDots_BNT1 };
}
