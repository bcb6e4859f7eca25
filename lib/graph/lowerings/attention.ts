// Shape legend: B batch, T tokens, N query heads, K key/value heads, G = N/K, H head width,
// Q queries of a block, S keys that a block sees.
import { toCompute, type Autocast } from "#lib/graph/autocast";
import type { GraphBuilder, GraphTensor } from "#lib/graph/builder";
import * as op from "#lib/graph/tf-ops";
import { type Lowering, registerLowering } from "#lib/graph/tracing-backend";
import {
  Attention,
  type AttentionAttrs,
  AttentionGrad,
  hiddenScore,
  isVisible,
  SegmentAttention,
  SegmentAttentionGrad,
} from "#lib/ops/index";

/** Queries in a block: keys that no query of a block may see are skipped block by block. */
const blockQueries = 128;

interface Heads {
  readonly attrs: AttentionAttrs;
  readonly b: number;
  readonly t: number;
  readonly k: number;
  readonly g: number;
  readonly h: number;
  readonly q_BKGTH: GraphTensor;
  readonly k_BKTH: GraphTensor;
  readonly v_BKTH: GraphTensor;
  readonly segments_BT: GraphTensor | undefined;
}

function headsOf(
  autocast: Autocast,
  inputs: Readonly<Record<string, GraphTensor>>,
  attrs: AttentionAttrs,
): Heads {
  const q_BTNH = toCompute(autocast, inputs["q"] as GraphTensor);
  const k_BTKH = toCompute(autocast, inputs["k"] as GraphTensor);
  const v_BTKH = toCompute(autocast, inputs["v"] as GraphTensor);
  const [b, t, n, h] = q_BTNH.shape as [number, number, number, number];
  const k = k_BTKH.shape[2] as number;
  const toHeads = (x: GraphTensor): GraphTensor => op.transpose(x, [0, 2, 1, 3]);
  return {
    attrs,
    b,
    t,
    k,
    g: n / k,
    h,
    q_BKGTH: op.reshape(toHeads(q_BTNH), [b, k, n / k, t, h]),
    k_BKTH: toHeads(k_BTKH),
    v_BKTH: toHeads(v_BTKH),
    segments_BT: inputs["segments"],
  };
}

interface Block {
  readonly start: number;
  readonly numQueries: number;
  /** Keys firstKey to firstKey + numKeys - 1 are seen by some query of the block. */
  readonly firstKey: number;
  readonly numKeys: number;
}

function blocksOf(numTokens: number, { causal, window }: AttentionAttrs): readonly Block[] {
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

/** Rows of the block from [B, K, G, T, H], with the queries that share a key head as one matrix. */
function queryRows(x_BKGTH: GraphTensor, { b, k, g, h }: Heads, block: Block): GraphTensor {
  const rows = op.slice(x_BKGTH, [0, 0, 0, block.start, 0], [b, k, g, block.numQueries, h]);
  return op.reshape(rows, [b, k, g * block.numQueries, h]);
}

const keyRows = (x_BKTH: GraphTensor, { b, k, h }: Heads, block: Block): GraphTensor =>
  op.slice(x_BKTH, [0, 0, block.firstKey, 0], [b, k, block.numKeys, h]);

/** [Q, S] float32 of what positions hide in one block; absent where they hide nothing. */
function positionMask(
  graph: GraphBuilder,
  block: Block,
  attrs: AttentionAttrs,
): GraphTensor | undefined {
  const { start, numQueries: q, firstKey, numKeys } = block;
  // Without a window the left part is all visible: only the triangle is stored.
  const firstStored = attrs.causal && attrs.window === 0 ? start : firstKey;
  const numStored = firstKey + numKeys - firstStored;
  const mask = Float32Array.from({ length: q * numStored }, (_, index) => {
    const query = start + Math.floor(index / numStored);
    return isVisible(attrs, query, firstStored + (index % numStored)) ? 0 : hiddenScore;
  });
  if (!attrs.causal && mask.every((value) => value === 0)) return undefined;
  return op.pad(
    op.constant(graph, mask, "float32", [q, numStored]),
    [
      [0, 0],
      [numKeys - numStored, 0],
    ],
    0,
  );
}

/** [B, 1, 1, Q, S] float32: hides keys of another segment. */
function segmentMask(segments_BT: GraphTensor, { b }: Heads, block: Block): GraphTensor {
  const queries = op.slice(segments_BT, [0, block.start], [b, block.numQueries]);
  const keys = op.slice(segments_BT, [0, block.firstKey], [b, block.numKeys]);
  const differs = op.notEqual(
    op.reshape(queries, [b, 1, 1, block.numQueries, 1]),
    op.reshape(keys, [b, 1, 1, 1, block.numKeys]),
  );
  const graph = segments_BT.node.graph;
  return op.mul(op.cast(differs, "float32"), op.scalar(graph, hiddenScore));
}

/** Scores of a block in float32 [B, K, G*Q, S], and the tanh of the softcap that made them. */
function scoresOf(heads: Heads, block: Block) {
  const q = queryRows(heads.q_BKGTH, heads, block);
  const graph = q.node.graph;
  const scores = op.matMul(q, keyRows(heads.k_BKTH, heads, block), false, true);
  // Scores in float32: with bfloat16 the softmax of a long row loses its tail.
  const scaled = op.mul(op.cast(scores, "float32"), op.scalar(graph, heads.attrs.scale));
  if (heads.attrs.softcap === 0) return { scores: scaled, tanh: undefined };
  const softcap = op.scalar(graph, heads.attrs.softcap);
  const tanh = op.unary("Tanh", op.div(scaled, softcap));
  return { scores: op.mul(tanh, softcap), tanh };
}

/** softmax(scores + masks) of a block, in compute type: [B, K, G*Q, S]. */
function probabilities(heads: Heads, block: Block): GraphTensor {
  const { b, k, g, attrs, segments_BT } = heads;
  const { scores } = scoresOf(heads, block);
  let masked = op.reshape(scores, [b, k, g, block.numQueries, block.numKeys]);
  const position = positionMask(scores.node.graph, block, attrs);
  if (position !== undefined) masked = op.add(masked, position);
  if (segments_BT !== undefined) masked = op.add(masked, segmentMask(segments_BT, heads, block));
  const flat = op.reshape(masked, [b, k, g * block.numQueries, block.numKeys]);
  return op.cast(op.softmax(flat), heads.q_BKGTH.dtype);
}

/** The output of one block, before heads are put back: [B, K, G*Q, H]. */
const blockOutput = (heads: Heads, block: Block): GraphTensor =>
  op.matMul(probabilities(heads, block), keyRows(heads.v_BKTH, heads, block), false, false);

const lowerAttention: Lowering = (tracer, inputs, rawAttrs) => {
  const attrs = rawAttrs as AttentionAttrs;
  const heads = headsOf(tracer.autocast, inputs, attrs);
  const { b, t, k, g, h } = heads;
  const blocks = blocksOf(t, attrs).map((block) =>
    op.reshape(blockOutput(heads, block), [b, k, g, block.numQueries, h]),
  );
  const out_BNTH = op.reshape(op.concat(blocks, 3), [b, k * g, t, h]);
  return op.transpose(out_BNTH, [0, 2, 1, 3]);
};

// With p the probabilities and o the output of a block:
// dv = p^T do; ds = p * (do v^T - rowsum(do * o)); dq = scale * ds k; dk = scale * ds^T q;
// behind a softcap ds is multiplied by 1 - tanh^2.
const lowerAttentionGrad: Lowering = (tracer, inputs, rawAttrs) => {
  const attrs = rawAttrs as AttentionAttrs;
  const heads = headsOf(tracer.autocast, inputs, attrs);
  const { b, t, k, g, h } = heads;
  const graph = tracer.graph;
  const dy_BTNH = toCompute(tracer.autocast, inputs["dy"] as GraphTensor);
  const dy_BKGTH = op.reshape(op.transpose(dy_BTNH, [0, 2, 1, 3]), [b, k, g, t, h]);
  const dqBlocks: GraphTensor[] = [];
  const dkParts: GraphTensor[] = [];
  const dvParts: GraphTensor[] = [];
  for (const block of blocksOf(t, attrs)) {
    const p = probabilities(heads, block);
    const out = blockOutput(heads, block);
    const dout = queryRows(dy_BKGTH, heads, block);
    const dp = op.matMul(dout, keyRows(heads.v_BKTH, heads, block), false, true);
    const rowDot = op.reduce(
      "Sum",
      op.mul(op.cast(dout, "float32"), op.cast(out, "float32")),
      [3],
      true,
    );
    const centred = op.sub(op.cast(dp, "float32"), rowDot);
    const { tanh } = scoresOf(heads, block);
    const dCapped = op.mul(op.cast(p, "float32"), centred);
    const dScores =
      tanh === undefined
        ? dCapped
        : op.mul(dCapped, op.sub(op.scalar(graph, 1), op.unary("Square", tanh)));
    const ds32 = op.mul(dScores, op.scalar(graph, attrs.scale));
    const ds = op.cast(ds32, p.dtype);
    const dq = op.matMul(ds, keyRows(heads.k_BKTH, heads, block), false, false);
    dqBlocks.push(op.reshape(dq, [b, k, g, block.numQueries, h]));
    const dk = op.matMul(ds, queryRows(heads.q_BKGTH, heads, block), true, false);
    dkParts.push(atKeys(dk, block, t));
    dvParts.push(atKeys(op.matMul(p, dout, true, false), block, t));
  }
  const dq_BNTH = op.reshape(op.concat(dqBlocks, 3), [b, k * g, t, h]);
  const back = (x: GraphTensor, input: string): GraphTensor =>
    op.cast(op.transpose(x, [0, 2, 1, 3]), (inputs[input] as GraphTensor).dtype);
  return [
    back(dq_BNTH, "q"),
    back(op.cast(op.addN(dkParts), dy_BTNH.dtype), "k"),
    back(op.cast(op.addN(dvParts), dy_BTNH.dtype), "v"),
  ];
};

/** Float32, with zero rows for the keys that a block does not see, so that blocks can be added. */
const atKeys = (x_BKSH: GraphTensor, block: Block, numTokens: number): GraphTensor =>
  op.pad(
    op.cast(x_BKSH, "float32"),
    [
      [0, 0],
      [0, 0],
      [block.firstKey, numTokens - block.firstKey - block.numKeys],
      [0, 0],
    ],
    0,
  );

registerLowering(Attention, lowerAttention);
registerLowering(SegmentAttention, lowerAttention);
registerLowering(AttentionGrad, lowerAttentionGrad);
registerLowering(SegmentAttentionGrad, lowerAttentionGrad);
