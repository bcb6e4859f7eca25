// Shape legend: B batch, T tokens, N query heads, K key/value heads, G = N/K, H head width,
// Q queries of a block, S keys that a block sees, R = G*Q.
import { toCompute, type Autocast } from "#lib/graph/autocast";
import type { GraphNode, GraphTensor } from "#lib/graph/builder";
import * as op from "#lib/graph/tf-ops";
import { type Lowering, registerLowering } from "#lib/graph/tracing-backend";
import {
  Attention,
  type AttentionAttrs,
  type AttentionBlock,
  attentionBlocks,
  AttentionGrad,
  DropoutAttention,
  DropoutAttentionGrad,
  type DropoutAttrs,
  DropoutSegmentAttention,
  DropoutSegmentAttentionGrad,
  firstMaskGroups,
  SegmentAttention,
  SegmentAttentionGrad,
} from "#lib/ops/index";
import {
  type HeadSizes,
  joinQueryRows,
  keyRows,
  queryRows,
  splitHeads,
  sumKeyRows,
} from "./attention-blocks.js";
import { outputGradient, probabilities, scoreGradient } from "./attention-scores.js";
import { dropped, maskBits } from "./dropout.js";

interface Heads extends HeadSizes {
  readonly autocast: Autocast;
  readonly attrs: AttentionAttrs;
  readonly blocks: readonly AttentionBlock[];
  /** Place of the first query among the keys. */
  readonly firstQuery: number;
  readonly q_BKGTH: GraphTensor;
  readonly k_BKTH: GraphTensor;
  readonly v_BKTH: GraphTensor;
  readonly segments_BT: GraphTensor | undefined;
  /** Absent: every probability counts. */
  readonly dropout?: ProbabilityDropout | undefined;
}

interface ProbabilityDropout {
  readonly coordinates: GraphTensor;
  readonly attrs: DropoutAttrs;
  /** Where the mask of each block begins. */
  readonly firstGroups: readonly number[];
}

function headsOf(
  autocast: Autocast,
  inputs: Readonly<Record<string, GraphTensor>>,
  attrs: AttentionAttrs,
): Heads {
  const qkv = [inputs["q"], inputs["k"], inputs["v"]].map((x) =>
    toCompute(autocast, x as GraphTensor),
  );
  const [b, t, n, h] = (qkv[0] as GraphTensor).shape as [number, number, number, number];
  const k = (qkv[1] as GraphTensor).shape[2] as number;
  const [q_BNTH, k_BKTH, v_BKTH] = splitHeads(qkv) as [GraphTensor, GraphTensor, GraphTensor];
  const blocks = attentionBlocks(t, attrs);
  const { coordinates } = inputs;
  return {
    autocast,
    attrs,
    blocks,
    firstQuery: 0,
    b,
    t,
    k,
    g: n / k,
    h,
    q_BKGTH: op.reshape(q_BNTH, [b, k, n / k, t, h]),
    k_BKTH,
    v_BKTH,
    segments_BT: inputs["segments"],
    dropout: coordinates && {
      coordinates,
      attrs: attrs as unknown as DropoutAttrs,
      firstGroups: firstMaskGroups(blocks, b * n),
    },
  };
}

/** Queries times keys of a block, and its probabilities, [B, K, R, S] each. */
function blockScores(heads: Heads, block: AttentionBlock) {
  const { b, autocast, attrs, segments_BT } = heads;
  const rows = { ...block, start: block.start - heads.firstQuery };
  const product = op.matMul(
    queryRows(heads.q_BKGTH, heads, rows),
    keyRows(heads.k_BKTH, heads, block),
    false,
    true,
  );
  const segments = segments_BT && {
    queries: op.slice(segments_BT, [0, block.start], [b, block.numQueries]),
    keys: op.slice(segments_BT, [0, block.firstKey], [b, block.numKeys]),
  };
  return { product, p: probabilities(autocast, product, block, attrs, segments) };
}

/** The random bits of a block's mask; absent without dropout. @param after see maskBits */
function blockMask({ dropout }: Heads, index: number, p_BKRS: GraphTensor, after: GraphNode) {
  if (dropout === undefined) return undefined;
  const { coordinates, attrs, firstGroups } = dropout;
  return maskBits(p_BKRS.shape, coordinates, attrs, after, firstGroups[index]);
}

function output(heads: Heads): GraphTensor {
  const outs = heads.blocks.map((block, index) => {
    const { p, product } = blockScores(heads, block);
    const mask = blockMask(heads, index, p, product.node);
    const weights = mask === undefined ? p : dropped(p, mask);
    return op.matMul(weights, keyRows(heads.v_BKTH, heads, block), false, false);
  });
  return joinQueryRows(outs, heads, heads.blocks);
}

/**
 * Attention of some neighbouring tokens, Q of all T, to all tokens.
 *
 * @param q_BNQH their queries
 * @param keysAndValues [B, K, T, H] each
 * @param firstQuery the place of the first of them
 * @returns [B, Q, N, H]
 */
export function attendFrom(
  autocast: Autocast,
  q_BNQH: GraphTensor,
  [k_BKTH, v_BKTH]: readonly [keys: GraphTensor, values: GraphTensor],
  attrs: AttentionAttrs,
  firstQuery: number,
  segments_BT: GraphTensor | undefined,
): GraphTensor {
  const [b, n, q, h] = q_BNQH.shape as [number, number, number, number];
  const [, k, t] = k_BKTH.shape as [number, number, number];
  return output({
    ...{ autocast, attrs, firstQuery, b, t: q, k, g: n / k, h, k_BKTH, v_BKTH, segments_BT },
    blocks: attentionBlocks(t, attrs, { start: firstQuery, length: q }),
    q_BKGTH: op.reshape(q_BNQH, [b, k, n / k, q, h]),
  });
}

const lowerAttention: Lowering = (tracer, inputs, rawAttrs) =>
  output(headsOf(tracer.autocast, inputs, rawAttrs as AttentionAttrs));

// With p the probabilities and o the output of a block:
// dv = p^T do; ds = scale * p * (do v^T - rowsum(do * o)); dq = ds k; dk = ds^T q.
// With a dropout's mask m of 0 and 1 / (1 - rate): dv = (m * p)^T do, and m * (do v^T) instead of do v^T.
const lowerAttentionGrad: Lowering = (tracer, inputs, rawAttrs) => {
  const attrs = rawAttrs as AttentionAttrs;
  const heads = headsOf(tracer.autocast, inputs, attrs);
  const { b, t, k, g, h } = heads;
  const dy_BTNH = toCompute(tracer.autocast, inputs["dy"] as GraphTensor);
  const { dy_BNTH, rowDots_BNT1 } = outputGradient(dy_BTNH, output(heads));
  const dy_BKGTH = op.reshape(dy_BNTH, [b, k, g, t, h]);
  const rowDots_BKGT1 = op.reshape(rowDots_BNT1, [b, k, g, t, 1]);
  const grads = heads.blocks.map((block, index) => {
    const { product, p } = blockScores(heads, block);
    const dout = queryRows(dy_BKGTH, heads, block);
    const dp = op.matMul(dout, keyRows(heads.v_BKTH, heads, block), false, true);
    const mask = blockMask(heads, index, p, dp.node);
    const ds = scoreGradient(p, dp, queryRows(rowDots_BKGT1, heads, block), product, attrs, mask);
    return {
      dq: op.matMul(ds, keyRows(heads.k_BKTH, heads, block), false, false),
      dk: op.matMul(ds, queryRows(heads.q_BKGTH, heads, block), true, false),
      dv: op.matMul(mask === undefined ? p : dropped(p, mask), dout, true, false),
    };
  });
  const dqs = grads.map(({ dq }) => dq);
  const keySum = (parts: readonly GraphTensor[]): GraphTensor =>
    sumKeyRows(parts, heads, heads.blocks);
  const as = (x: GraphTensor, input: string): GraphTensor =>
    op.cast(x, (inputs[input] as GraphTensor).dtype);
  return [
    as(joinQueryRows(dqs, heads, heads.blocks), "q"),
    as(keySum(grads.map(({ dk }) => dk)), "k"),
    as(keySum(grads.map(({ dv }) => dv)), "v"),
  ];
};

for (const kernel of [Attention, SegmentAttention, DropoutAttention, DropoutSegmentAttention]) {
  registerLowering(kernel, lowerAttention);
}
for (const kernel of [
  ...[AttentionGrad, SegmentAttentionGrad],
  ...[DropoutAttentionGrad, DropoutSegmentAttentionGrad],
]) {
  registerLowering(kernel, lowerAttentionGrad);
}
