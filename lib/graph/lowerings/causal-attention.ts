// Shape legend: B batch, T tokens, N query heads, K key/value heads, G = N/K, H head width,
// Q queries of a block, S keys that a block sees.
import { toCompute, type Autocast } from "#lib/graph/autocast";
import type { GraphBuilder, GraphTensor } from "#lib/graph/builder";
import * as op from "#lib/graph/tf-ops";
import { registerLowering, type Tracer } from "#lib/graph/tracing-backend";
import { CausalAttention, CausalAttentionGrad } from "#lib/ops/index";

/** Queries in a block: the masked half of the scores is skipped block by block. */
const blockQueries = 128;

/** Added to the score of a key that a query may not see: softmax turns it to exactly 0. */
const hidden = -1e30;

interface Heads {
  readonly b: number;
  readonly t: number;
  readonly k: number;
  readonly g: number;
  readonly h: number;
  readonly q_BKGTH: GraphTensor;
  readonly k_BKTH: GraphTensor;
  readonly v_BKTH: GraphTensor;
}

function headsOf(autocast: Autocast, inputs: Readonly<Record<string, GraphTensor>>): Heads {
  const q_BTNH = toCompute(autocast, inputs["q"] as GraphTensor);
  const k_BTKH = toCompute(autocast, inputs["k"] as GraphTensor);
  const v_BTKH = toCompute(autocast, inputs["v"] as GraphTensor);
  const [b, t, n, h] = q_BTNH.shape as [number, number, number, number];
  const k = k_BTKH.shape[2] as number;
  const toHeads = (x: GraphTensor): GraphTensor => op.transpose(x, [0, 2, 1, 3]);
  return {
    b,
    t,
    k,
    g: n / k,
    h,
    q_BKGTH: op.reshape(toHeads(q_BTNH), [b, k, n / k, t, h]),
    k_BKTH: toHeads(k_BTKH),
    v_BKTH: toHeads(v_BTKH),
  };
}

interface Block {
  readonly start: number;
  readonly numQueries: number;
  /** Keys 0 to numKeys - 1 are seen by some query of the block. */
  readonly numKeys: number;
}

function blocksOf(numTokens: number): readonly Block[] {
  const numBlocks = Math.ceil(numTokens / blockQueries);
  return Array.from({ length: numBlocks }, (_, index) => {
    const start = index * blockQueries;
    const numQueries = Math.min(blockQueries, numTokens - start);
    return { start, numQueries, numKeys: start + numQueries };
  });
}

/** Rows of the block from [B, K, G, T, H], with the queries that share a key head as one matrix. */
function queryRows(x_BKGTH: GraphTensor, { b, k, g, h }: Heads, block: Block): GraphTensor {
  const rows = op.slice(x_BKGTH, [0, 0, 0, block.start, 0], [b, k, g, block.numQueries, h]);
  return op.reshape(rows, [b, k, g * block.numQueries, h]);
}

const keyRows = (x_BKTH: GraphTensor, { b, k, h }: Heads, block: Block): GraphTensor =>
  op.slice(x_BKTH, [0, 0, 0, 0], [b, k, block.numKeys, h]);

/** [Q, S] float32 for one block; the left part is all visible, the last Q columns are a triangle. */
function blockMask(graph: GraphBuilder, block: Block): GraphTensor {
  const q = block.numQueries;
  const triangle = new Float32Array(q * q);
  for (let query = 0; query < q; query++)
    triangle.fill(hidden, query * q + query + 1, (query + 1) * q);
  const mask_QQ = op.constant(graph, triangle, "float32", [q, q]);
  return op.pad(
    mask_QQ,
    [
      [0, 0],
      [block.numKeys - q, 0],
    ],
    0,
  );
}

/** softmax(scale * q k^T + mask) of a block, in compute type: [B, K, G*Q, S]. */
function probabilities(heads: Heads, block: Block, scale: number): GraphTensor {
  const { b, k, g } = heads;
  const q = queryRows(heads.q_BKGTH, heads, block);
  const graph = q.node.graph;
  const scores = op.matMul(q, keyRows(heads.k_BKTH, heads, block), false, true);
  // Scores in float32: with bfloat16 the softmax of a long row loses its tail.
  const scaled = op.mul(op.cast(scores, "float32"), op.scalar(graph, scale));
  const shape = [b, k, g, block.numQueries, block.numKeys];
  const masked = op.add(op.reshape(scaled, shape), blockMask(graph, block));
  const flat = op.reshape(masked, [b, k, g * block.numQueries, block.numKeys]);
  return op.cast(op.softmax(flat), q.dtype);
}

/** The output of one block, before heads are put back: [B, K, G*Q, H]. */
const blockOutput = (heads: Heads, block: Block, scale: number): GraphTensor =>
  op.matMul(probabilities(heads, block, scale), keyRows(heads.v_BKTH, heads, block), false, false);

registerLowering(CausalAttention, (tracer, inputs, attrs) => {
  const heads = headsOf(tracer.autocast, inputs);
  const { b, t, k, g, h } = heads;
  const blocks = blocksOf(t).map((block) =>
    op.reshape(blockOutput(heads, block, attrs["scale"] as number), [b, k, g, block.numQueries, h]),
  );
  const out_BNTH = op.reshape(op.concat(blocks, 3), [b, k * g, t, h]);
  return op.transpose(out_BNTH, [0, 2, 1, 3]);
});

// With p the probabilities and o the output of a block:
// dv = p^T do; ds = p * (do v^T - rowsum(do * o)); dq = scale * ds k; dk = scale * ds^T q.
registerLowering(CausalAttentionGrad, (tracer: Tracer, inputs, attrs) => {
  const heads = headsOf(tracer.autocast, inputs);
  const { b, t, k, g, h } = heads;
  const graph = tracer.graph;
  const scale = attrs["scale"] as number;
  const dy_BTNH = toCompute(tracer.autocast, inputs["dy"] as GraphTensor);
  const dy_BKGTH = op.reshape(op.transpose(dy_BTNH, [0, 2, 1, 3]), [b, k, g, t, h]);
  const dqBlocks: GraphTensor[] = [];
  const dkParts: GraphTensor[] = [];
  const dvParts: GraphTensor[] = [];
  for (const block of blocksOf(t)) {
    const p = probabilities(heads, block, scale);
    const out = blockOutput(heads, block, scale);
    const dout = queryRows(dy_BKGTH, heads, block);
    const dp = op.matMul(dout, keyRows(heads.v_BKTH, heads, block), false, true);
    const rowDot = op.reduce(
      "Sum",
      op.mul(op.cast(dout, "float32"), op.cast(out, "float32")),
      [3],
      true,
    );
    const centred = op.sub(op.cast(dp, "float32"), rowDot);
    const ds32 = op.mul(op.mul(op.cast(p, "float32"), centred), op.scalar(graph, scale));
    const ds = op.cast(ds32, p.dtype);
    const dq = op.matMul(ds, keyRows(heads.k_BKTH, heads, block), false, false);
    dqBlocks.push(op.reshape(dq, [b, k, g, block.numQueries, h]));
    const dk = op.matMul(ds, queryRows(heads.q_BKGTH, heads, block), true, false);
    dkParts.push(withTail(dk, t));
    dvParts.push(withTail(op.matMul(p, dout, true, false), t));
  }
  const dq_BNTH = op.reshape(op.concat(dqBlocks, 3), [b, k * g, t, h]);
  const back = (x: GraphTensor, input: string): GraphTensor =>
    op.cast(op.transpose(x, [0, 2, 1, 3]), (inputs[input] as GraphTensor).dtype);
  return [
    back(dq_BNTH, "q"),
    back(op.cast(op.addN(dkParts), dy_BTNH.dtype), "k"),
    back(op.cast(op.addN(dvParts), dy_BTNH.dtype), "v"),
  ];
});

/** Float32, with zero rows for the keys that a block does not see, so that blocks can be added. */
const withTail = (x_BKSH: GraphTensor, numTokens: number): GraphTensor =>
  op.pad(
    op.cast(x_BKSH, "float32"),
    [
      [0, 0],
      [0, 0],
      [0, numTokens - (x_BKSH.shape[2] as number)],
      [0, 0],
    ],
    0,
  );
