// Shape legend: M rows, C rows of a chunk, D model width, V vocabulary.
import { toCompute, toFloat32 } from "#lib/graph/autocast";
import { dependsOn, type GraphNode, type GraphTensor } from "#lib/graph/builder";
import * as op from "#lib/graph/tf-ops";
import { registerLowering, type Tracer } from "#lib/graph/tracing-backend";
import { LinearCrossEntropy, LinearCrossEntropyGrad } from "#lib/ops/index";

/**
 * Rows whose logits exist at once. With a vocabulary of 50,000 a chunk of 512 rows takes 100 MB in
 * float32; the products stay large enough to run at the machine's rate.
 */
const chunkRows = 512;

interface Chunk {
  readonly numRows: number;
  readonly hidden_CD: GraphTensor;
  readonly targets_C: GraphTensor;
  readonly weight_VD: GraphTensor;
  /** 0: none. */
  readonly softcap: number;
}

function chunksOf(
  tracer: Tracer,
  inputs: Readonly<Record<string, GraphTensor>>,
  attrs: Readonly<Record<string, unknown>>,
): readonly Chunk[] {
  const softcap = attrs["softcap"] as number;
  const hidden_MD = toCompute(tracer.autocast, inputs["hidden"] as GraphTensor);
  const weight_VD = toCompute(tracer.autocast, inputs["weight"] as GraphTensor);
  const targets_M = inputs["targets"] as GraphTensor;
  const [numRows, width] = hidden_MD.shape as [number, number];
  return Array.from({ length: Math.ceil(numRows / chunkRows) }, (_, index) => {
    const start = index * chunkRows;
    const rows = Math.min(chunkRows, numRows - start);
    return {
      numRows: rows,
      hidden_CD: op.slice(hidden_MD, [start, 0], [rows, width]),
      targets_C: op.slice(targets_M, [start], [rows]),
      weight_VD,
      softcap,
    };
  });
}

/** Logits of a chunk in float32, the product that they come from, and the tanh of the softcap. */
function logitsOf({ hidden_CD, weight_VD, softcap }: Chunk) {
  const product = op.matMul(hidden_CD, weight_VD, false, true);
  const raw_CV = toFloat32(product);
  if (softcap === 0) return { logits_CV: raw_CV, productNode: product.node, tanh_CV: undefined };
  const cap = op.scalar(weight_VD.node.graph, softcap);
  const tanh_CV = op.unary("Tanh", op.div(raw_CV, cap));
  return { logits_CV: op.mul(tanh_CV, cap), productNode: product.node, tanh_CV };
}

/** Forward values of a chunk; the gradient writes the same nodes again and finds them there. */
function forward(chunk: Chunk) {
  const { numRows, targets_C, weight_VD } = chunk;
  const graph = weight_VD.node.graph;
  const vocab = weight_VD.shape[0] as number;
  const { logits_CV, productNode, tanh_CV } = logitsOf(chunk);
  const max_C1 = op.reduce("Max", logits_CV, [1], true);
  const exp_CV = op.unary("Exp", op.sub(logits_CV, max_C1));
  const sum_C1 = op.reduce("Sum", exp_CV, [1], true);
  const zero = op.intScalar(graph, 0);
  const supervised_C = op.cast(op.greaterEqual(targets_C, zero), "float32");
  const safeTargets_C = op.maximum(targets_C, zero);
  // The target's logit by its flat index: no one-hot matrix.
  const rowStarts_C = op.constant(
    graph,
    Int32Array.from({ length: numRows }, (_, row) => row * vocab),
    "int32",
    [numRows],
  );
  const flatIndex_C = op.add(rowStarts_C, safeTargets_C);
  const targetLogit_C = op.gather(op.reshape(logits_CV, [numRows * vocab]), flatIndex_C, 0);
  const logSumExp_C = op.add(
    op.reshape(op.unary("Log", sum_C1), [numRows]),
    op.reshape(max_C1, [numRows]),
  );
  const nll_C = op.mul(op.sub(logSumExp_C, targetLogit_C), supervised_C);
  return { productNode, tanh_CV, exp_CV, sum_C1, supervised_C, safeTargets_C, nll_C };
}

registerLowering(LinearCrossEntropy, (tracer, inputs, attrs) =>
  op.addN(
    chunksOf(tracer, inputs, attrs).map((chunk) =>
      op.reduce("Sum", forward(chunk).nll_C, [0], false),
    ),
  ),
);

// d logits = dy * supervised * (softmax - one-hot), times 1 - tanh^2 behind a softcap;
// d hidden = d logits W; d W = d logits^T hidden.
registerLowering(LinearCrossEntropyGrad, (tracer, inputs, attrs) => {
  const hidden = inputs["hidden"] as GraphTensor;
  const dy = toFloat32(inputs["dy"] as GraphTensor);
  const graph = tracer.graph;
  const dHiddenChunks: GraphTensor[] = [];
  const dWeightChunks: GraphTensor[] = [];
  let previous: GraphNode | undefined;
  for (const chunk of chunksOf(tracer, inputs, attrs)) {
    const vocab = chunk.weight_VD.shape[0] as number;
    const { productNode, tanh_CV, exp_CV, sum_C1, supervised_C, safeTargets_C } = forward(chunk);
    const seed_C1 = op.reshape(op.mul(supervised_C, dy), [chunk.numRows, 1]);
    const softmax_CV = op.mul(exp_CV, op.div(seed_C1, sum_C1));
    const oneHot_CV = op.oneHot(
      safeTargets_C,
      vocab,
      op.scalar(graph, 1, tracer.autocast.compute),
      op.scalar(graph, 0, tracer.autocast.compute),
    );
    const dCapped_CV = op.sub(
      op.cast(softmax_CV, tracer.autocast.compute),
      op.mul(oneHot_CV, op.cast(seed_C1, tracer.autocast.compute)),
    );
    const dLogits_CV = tanh_CV === undefined ? dCapped_CV : throughTanh(dCapped_CV, tanh_CV);
    dHiddenChunks.push(op.matMul(dLogits_CV, chunk.weight_VD, false, false));
    const dWeight_VD = op.matMul(dLogits_CV, chunk.hidden_CD, true, false);
    dWeightChunks.push(op.cast(dWeight_VD, "float32"));
    // One chunk's logits at a time: the next chunk starts when this one's gradient is done.
    if (previous !== undefined && !dependsOn(previous, productNode)) {
      productNode.controlInputs.add(previous);
    }
    previous = dWeight_VD.node;
  }
  const dHidden_MD = op.concat(dHiddenChunks, 0);
  return [op.cast(dHidden_MD, hidden.dtype), op.addN(dWeightChunks)];
});

/** The gradient before a softcap, in the type of the gradient behind it. */
function throughTanh(d: GraphTensor, tanh: GraphTensor): GraphTensor {
  const slope = op.sub(op.scalar(d.node.graph, 1), op.unary("Square", tanh));
  return op.cast(op.mul(toFloat32(d), slope), d.dtype);
}
