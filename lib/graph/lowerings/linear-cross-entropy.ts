// Shape legend: M rows, C rows of a chunk, D model width, V vocabulary, P vocabulary with padding,
// L lanes of Q columns.
import * as tf from "@tensorflow/tfjs-core";
import { toCompute, toFloat32 } from "#lib/graph/autocast";
import { dependsOn, type GraphNode, type GraphTensor } from "#lib/graph/builder";
import * as op from "#lib/graph/tf-ops";
import { leadingRows, paddedRows, rowMultiple, wholeMatrix } from "#lib/graph/padded-rows";
import { registerLowering, type Tracer } from "#lib/graph/tracing-backend";
import { xlaFunction, xlaTensor } from "#lib/graph/xla-function";
import {
  LinearCrossEntropy,
  LinearCrossEntropyGrad,
  LinearTokenLosses,
  LinearTokenLossesGrad,
  WeightedLinearCrossEntropy,
  WeightedLinearCrossEntropyGrad,
} from "#lib/ops/index";

/**
 * Rows whose logits exist at once. With a vocabulary of 50,000 a chunk of 1024 rows takes 100 MB in
 * bfloat16, and its gradient as much; no float32 logits reach memory.
 */
const chunkRows = 1024;

/** Parts of a row's sum of exponentials: L in shapes, Q columns each. */
export const numLanes = rowMultiple;

/** What the loss of a chunk's logits is of. */
interface LossSettings {
  readonly vocab: number;
  /** 0: none. */
  readonly softcap: number;
  /** Share of a target that is spread over the vocabulary; 0: none. */
  readonly labelSmoothing: number;
  /** Of the square of log Z, Z the sum of exponentials; 0: none. */
  readonly zLossWeight: number;
  /** Whether the loss of each row is asked for, and not their sum. */
  readonly isByRow: boolean;
}

export interface Chunk extends LossSettings {
  /** Of its first row. */
  readonly start: number;
  readonly hidden_CD: GraphTensor;
  readonly targets_C: GraphTensor;
  /** float32, how much each row counts; absent: 1 each. */
  readonly weights_C: GraphTensor | undefined;
  /** With the rows that pad it. */
  readonly weight_PD: GraphTensor;
}

export function chunksOf(
  tracer: Tracer,
  inputs: Readonly<Record<string, GraphTensor>>,
  attrs: Readonly<Record<string, unknown>>,
  isByRow = false,
): readonly Chunk[] {
  const softcap = attrs["softcap"] as number;
  const { labelSmoothing = 0, zLossWeight = 0 } = attrs as Partial<LossSettings>;
  const hidden_MD = toCompute(tracer.autocast, inputs["hidden"] as GraphTensor);
  const weight_VD = toCompute(tracer.autocast, inputs["weight"] as GraphTensor);
  const targets_M = inputs["targets"] as GraphTensor;
  const weights_M = inputs["weights"];
  const [numRows, width] = hidden_MD.shape as [number, number];
  return Array.from({ length: Math.ceil(numRows / chunkRows) }, (_, index) => {
    const start = index * chunkRows;
    const rows = Math.min(chunkRows, numRows - start);
    return {
      start,
      hidden_CD: op.slice(hidden_MD, [start, 0], [rows, width]),
      targets_C: op.slice(targets_M, [start], [rows]),
      weights_C: weights_M && op.slice(weights_M, [start], [rows]),
      weight_PD: wholeMatrix(weight_VD),
      vocab: weight_VD.shape[0] as number,
      ...{ softcap, labelSmoothing, zLossWeight, isByRow },
    };
  });
}

/** Logits in float32, with the tanh behind them where they are capped. */
export function cappedLogits(logits: GraphTensor, softcap: number) {
  const raw = toFloat32(logits);
  if (softcap === 0) return { capped: raw, tanh: undefined };
  const cap = op.scalar(logits.node.graph, softcap);
  const tanh = op.unary("Tanh", op.div(raw, cap));
  return { capped: op.mul(tanh, cap), tanh };
}

/** Minus infinity in the columns behind the vocabulary, so that they weigh nothing. */
export function masked(logits: GraphTensor, vocab: number): GraphTensor {
  const numColumns = logits.shape[1] as number;
  if (numColumns === vocab) return logits;
  const mask = new Float32Array(numColumns).fill(Number.NEGATIVE_INFINITY, vocab);
  return op.add(logits, op.constant(logits.node.graph, mask, "float32", [1, numColumns]));
}

/** A value for each of a vocabulary's columns, and 0 behind them: [1, columns]. */
export const vocabularyRow = (
  like: GraphTensor,
  value: number,
  vocab: number,
  numColumns: number,
): GraphTensor =>
  op.constant(like.node.graph, new Float32Array(numColumns).fill(value, 0, vocab), "float32", [
    1,
    numColumns,
  ]);

/**
 * The largest logit of each row, and the exponentials' sums in `numLanes` parts; where targets are smoothed
 * also the sums of the logits themselves. XLA goes along a row number by number: a sum of 50,000 that has
 * passed 1 loses the small ones, 3e-6 of a loss in all, and lanes side by side are also what a processor does
 * at once.
 */
function exponentialParts(
  logits: GraphTensor,
  { vocab, softcap, labelSmoothing }: LossSettings,
): GraphTensor[] {
  const [numRows, numColumns] = logits.shape as [number, number];
  const size = paddedRows(numColumns);
  const perLane = size / numLanes;
  const { capped } = cappedLogits(logits, softcap);
  const wide = op.pad(
    capped,
    [
      [0, 0],
      [0, size - numColumns],
    ] as const,
    0,
  );
  const logits_CQL = op.reshape(masked(wide, vocab), [numRows, perLane, numLanes]);
  const max_C1 = op.reduce("Max", op.reduce("Max", logits_CQL, [1], false), [1], true);
  const exp_CQL = op.unary("Exp", op.sub(logits_CQL, op.reshape(max_C1, [numRows, 1, 1])));
  const parts = [max_C1, op.reduce("Sum", exp_CQL, [1], false)];
  if (labelSmoothing === 0) return parts;
  const counted = op.mul(wide, vocabularyRow(wide, 1, vocab, size));
  const counted_CQL = op.reshape(counted, [numRows, perLane, numLanes]);
  return [...parts, op.reduce("Sum", counted_CQL, [1], false)];
}

/** What the loss of a chunk is made of, as arguments of its function. */
interface LossOperands {
  readonly logits: GraphTensor;
  readonly targets_C: GraphTensor;
  /** The largest logit, and the sum of exponentials over that of the largest. */
  readonly max_C1: GraphTensor;
  readonly sum_C1: GraphTensor;
  /** Sums of the logits, where targets are smoothed. */
  readonly logitSum_C1: GraphTensor | undefined;
  readonly weights_C: GraphTensor | undefined;
  /** Multiplies the gradient before it is rounded: a scalar, or [rows, 1]. */
  readonly seed: GraphTensor | undefined;
}

/** Loss and gradient of a chunk's logits. */
function lossOf(
  { logits, targets_C, max_C1, sum_C1, logitSum_C1, weights_C, seed }: LossOperands,
  { vocab, softcap, labelSmoothing, zLossWeight, isByRow }: LossSettings,
  withGrad: boolean,
): GraphTensor[] {
  const graph = logits.node.graph;
  const [numRows, numColumns] = logits.shape as [number, number];
  const zero = op.intScalar(graph, 0);
  const isSupervised_C = op.cast(op.greaterEqual(targets_C, zero), "float32");
  const counted_C = weights_C === undefined ? isSupervised_C : op.mul(isSupervised_C, weights_C);
  const safeTargets_C = op.maximum(targets_C, zero);
  // The target's logit by its flat index: no one-hot matrix.
  const rowStarts_C = op.constant(
    graph,
    Int32Array.from({ length: numRows }, (_, row) => row * numColumns),
    "int32",
    [numRows],
  );
  const flatIndex_C = op.add(rowStarts_C, safeTargets_C);
  const rawTarget_C = op.gather(op.reshape(logits, [numRows * numColumns]), flatIndex_C, 0);
  const { capped: targetLogit_C } = cappedLogits(rawTarget_C, softcap);
  const logSumExp_C = op.reshape(op.add(op.unary("Log", sum_C1), max_C1), [numRows]);
  const expectedLogit_C =
    logitSum_C1 === undefined
      ? targetLogit_C
      : op.add(
          op.mul(targetLogit_C, op.scalar(graph, 1 - labelSmoothing)),
          op.mul(op.reshape(logitSum_C1, [numRows]), op.scalar(graph, labelSmoothing / vocab)),
        );
  const nll_C = op.sub(logSumExp_C, expectedLogit_C);
  const loss_C =
    zLossWeight === 0
      ? nll_C
      : op.add(nll_C, op.mul(op.unary("Square", logSumExp_C), op.scalar(graph, zLossWeight)));
  const counted = op.mul(loss_C, counted_C);
  const loss = isByRow ? counted : op.reduce("Sum", counted, [0], false);
  if (!withGrad) return [loss];
  const { capped, tanh } = cappedLogits(logits, softcap);
  const exp_CP = op.unary("Exp", op.sub(masked(capped, vocab), max_C1));
  const counted_C1 = op.reshape(counted_C, [numRows, 1]);
  // d (log Z + z log^2 Z) = (1 + 2 z log Z) softmax.
  const share_C1 =
    zLossWeight === 0
      ? counted_C1
      : op.mul(
          counted_C1,
          op.add(
            op.mul(op.reshape(logSumExp_C, [numRows, 1]), op.scalar(graph, 2 * zLossWeight)),
            op.scalar(graph, 1),
          ),
        );
  const softmax_CP = op.mul(exp_CP, op.div(share_C1, sum_C1));
  const [kept, none] = [op.scalar(graph, 1 - labelSmoothing), op.scalar(graph, 0)];
  const oneHot_CP = op.oneHot(safeTargets_C, numColumns, kept, none);
  const targets_CP =
    labelSmoothing === 0
      ? oneHot_CP
      : op.add(oneHot_CP, vocabularyRow(logits, labelSmoothing / vocab, vocab, numColumns));
  const dCapped_CP = op.sub(softmax_CP, op.mul(targets_CP, counted_C1));
  const dLogits_CP =
    tanh === undefined
      ? dCapped_CP
      : op.mul(dCapped_CP, op.sub(op.scalar(graph, 1), op.unary("Square", tanh)));
  const seeded_CP = seed === undefined ? dLogits_CP : op.mul(dLogits_CP, toFloat32(seed));
  return [loss, op.cast(seeded_CP, logits.dtype)];
}

/**
 * The loss of a chunk and, where asked, d loss / d logits. The gradient asks for the same calls as a
 * taped forward and finds them there.
 */
function lossCall(
  { hidden_CD, weight_PD, targets_C, weights_C, ...settings }: Chunk,
  withGrad: boolean,
  seed?: GraphTensor,
) {
  const graph = weight_PD.node.graph;
  const product_CP = op.matMul(hidden_CD, weight_PD, false, true);
  const [max_C1, ...parts_CL] = xlaFunction(graph, "ExponentialParts", [product_CP], ([logits]) =>
    exponentialParts(logits as GraphTensor, settings),
  ) as [GraphTensor, ...GraphTensor[]];
  // Outside of the functions: XLA would make one sum of the two.
  const [sum_C1, logitSum_C1] = parts_CL.map((parts) => op.reduce("Sum", parts, [1], true));
  const operands: LossOperands = {
    ...{ logits: product_CP, targets_C, max_C1, sum_C1: sum_C1 as GraphTensor },
    ...{ logitSum_C1, weights_C, seed },
  };
  const given = Object.entries(operands).filter(([, operand]) => operand !== undefined);
  const [loss, dLogits_CP] = xlaFunction(
    graph,
    settings.isByRow ? LinearTokenLosses : LinearCrossEntropy,
    given.map(([, operand]) => operand as GraphTensor),
    (args) => {
      const named = Object.fromEntries(given.map(([name], i) => [name, args[i]]));
      return lossOf({ ...operands, ...named }, settings, withGrad);
    },
  );
  return {
    productNode: op.productNode(product_CP),
    loss: loss as GraphTensor,
    dLogits_CP: dLogits_CP as GraphTensor,
  };
}

/**
 * Whether logits are of a type that does not hold their gradient without the loss scale in it: a softmax of 1e-6
 * is among the last steps above 0 of float16. Then backward computes the gradient of logits by itself.
 */
const seedsLogits = ({ autocast }: Tracer): boolean => autocast.compute === "float16";

for (const kernel of [LinearCrossEntropy, WeightedLinearCrossEntropy]) {
  registerLowering(kernel, (tracer, inputs, attrs) => {
    const isTaped = tf.engine().state.gradientDepth > 0 && !seedsLogits(tracer);
    return op.addN(chunksOf(tracer, inputs, attrs).map((chunk) => lossCall(chunk, isTaped).loss));
  });
}

// What multiplies a row's gradient is known in backward only, and enters before it is rounded.
registerLowering(LinearTokenLosses, (tracer, inputs, attrs) =>
  op.concat(
    chunksOf(tracer, inputs, attrs, true).map((chunk) => lossCall(chunk, false).loss),
    0,
  ),
);

/** dy times the sum of the parts, in float32 inside. */
const scaledSum = (
  dy: GraphTensor,
  parts: readonly GraphTensor[],
  dtype: GraphTensor["dtype"],
): GraphTensor =>
  xlaTensor(dy.node.graph, "ScaledSum", [dy, ...parts], ([factor, ...terms]) => {
    const sum = terms.map(toFloat32).reduce((total, term) => op.add(total, term));
    return op.cast(op.mul(sum, toFloat32(factor as GraphTensor)), dtype);
  });

// d logits = dy * w * supervised * ((1 + 2 z log Z) softmax - targets), times 1 - tanh^2 behind a softcap; targets
// are one-hot, or (1 - e) one-hot + e/V where they are smoothed; w is a row's weight, z that of the square of log Z;
// d hidden = d logits W; d W = d logits^T hidden. dy multiplies the two results, which are smaller
// than the logits; or the gradient of these, where it would be lost without.
for (const kernel of [LinearCrossEntropyGrad, WeightedLinearCrossEntropyGrad]) {
  registerLowering(kernel, (tracer, inputs, attrs) => {
    const dy = inputs["dy"] as GraphTensor;
    const seed = seedsLogits(tracer) ? dy : undefined;
    return gradients(inputs, chunksOf(tracer, inputs, attrs), {
      seedOf: () => seed,
      factor: seed === undefined ? dy : op.scalar(tracer.graph, 1),
    });
  });
}

registerLowering(LinearTokenLossesGrad, (tracer, inputs, attrs) => {
  const dy_M = inputs["dy"] as GraphTensor;
  return gradients(inputs, chunksOf(tracer, inputs, attrs, true), {
    seedOf: ({ start, targets_C }) => {
      const numRows = targets_C.shape[0] as number;
      return op.reshape(op.slice(dy_M, [start], [numRows]), [numRows, 1]);
    },
    factor: op.scalar(tracer.graph, 1),
  });
});

/**
 * The gradients of hidden states and weight.
 *
 * @param seedOf what multiplies the gradient of a chunk's logits
 * @param factor multiplies the two results
 */
function gradients(
  inputs: Readonly<Record<string, GraphTensor>>,
  chunks: readonly Chunk[],
  {
    seedOf,
    factor,
  }: { seedOf: (chunk: Chunk) => GraphTensor | undefined; readonly factor: GraphTensor },
): GraphTensor[] {
  const hidden = inputs["hidden"] as GraphTensor;
  const vocab = (inputs["weight"] as GraphTensor).shape[0] as number;
  const dHiddenChunks: GraphTensor[] = [];
  const dWeightChunks: GraphTensor[] = [];
  let previous: GraphNode | undefined;
  for (const chunk of chunks) {
    const { productNode, dLogits_CP } = lossCall(chunk, true, seedOf(chunk));
    const dHidden_CD = op.matMul(dLogits_CP, chunk.weight_PD, false, false);
    dHiddenChunks.push(dHidden_CD);
    dWeightChunks.push(op.matMul(dLogits_CP, chunk.hidden_CD, true, false));
    // One chunk's logits at a time: the next chunk starts when this one's gradient is done. The
    // gradient of the weight is not waited for: nothing computes it where the weight is frozen.
    if (previous !== undefined && !dependsOn(previous, productNode)) {
      productNode.controlInputs.add(previous);
    }
    previous = op.productNode(dHidden_CD);
  }
  return [
    scaledSum(factor, [op.concat(dHiddenChunks, 0)], hidden.dtype),
    scaledSum(
      factor,
      dWeightChunks.map((chunk) => leadingRows(chunk, vocab)),
      "float32",
    ),
  ];
}
