// Shape legend: M rows, K inner dimension, N outputs.
import type { GraphBuilder, GraphDtype, GraphTensor } from "./builder.js";
import * as op from "./tf-ops.js";

/**
 * What TensorFlow's oneDNN pass makes of a product with a bias. Written down as such it can be told
 * that its weight never changes, which that pass believes of constants of the graph only.
 */
const packedOp = "_MklNativeFusedMatMul";

/** Of a packed product, before its result is rounded. */
export type PackedActivation = "GeluApproximate" | "GeluExact";

/** Stands for no bias; the graph makes it once, so it is told by identity. */
const noBias = (graph: GraphBuilder, dtype: GraphDtype, numOutputs: number): GraphTensor =>
  op.fill(op.scalar(graph, 0, dtype), [numOutputs]);

/**
 * x W + bias, as a node that at its first run keeps a copy of W in the blocks that the processor reads
 * fastest: a product of few rows then takes what reading W takes, where oneDNN's plain product copies
 * blocks of W each time. The sum with the bias is rounded once,
 * after the activation.
 *
 * @param weight must never change after the first run; [K, N], or [N, K] with `transposeWeight`
 * @param bias_N in the type of x; absent: 0
 */
export function packedProduct(
  x_MK: GraphTensor,
  weight: GraphTensor,
  transposeWeight: boolean,
  bias_N?: GraphTensor,
  activation?: PackedActivation,
): GraphTensor {
  const { dtype, node } = x_MK;
  const plain = op.productShape(x_MK, weight, false, transposeWeight);
  const bias = bias_N ?? noBias(node.graph, dtype, plain[1] as number);
  return node.graph.tensor(
    packedOp,
    [x_MK, weight, bias],
    {
      T: op.type(dtype),
      transpose_a: op.bool(false),
      transpose_b: op.bool(transposeWeight),
      num_args: op.int(1),
      fused_ops: {
        kind: "strings",
        value: ["BiasAdd", ...(activation === undefined ? [] : [activation])],
      },
      is_filter_const: op.bool(true),
      // The label under which TensorFlow registers oneDNN's kernels of plain tensors.
      _kernel: { kind: "string", value: "MklNameChangeOp" },
    },
    dtype,
    plain,
  );
}

interface PackedParts {
  readonly operands: readonly [GraphTensor, GraphTensor, GraphTensor];
  readonly isTransposed: boolean;
  readonly hasBias: boolean;
  readonly hasActivation: boolean;
}

function packedParts({ node, dtype, shape }: GraphTensor): PackedParts | undefined {
  if (node.op !== packedOp) return undefined;
  const { transpose_b: transposed, fused_ops: fused } = node.attrs;
  return {
    operands: node.inputs as unknown as PackedParts["operands"],
    isTransposed: transposed?.kind === "bool" && transposed.value,
    hasBias: node.inputs[2] !== noBias(node.graph, dtype, shape[1] as number),
    hasActivation: fused?.kind === "strings" && fused.value.length > 1,
  };
}

/** The product with a bias added to it, if it is a packed one that has none. */
export function withBias(product: GraphTensor, bias_N: GraphTensor): GraphTensor | undefined {
  const parts = packedParts(product);
  if (parts === undefined || parts.hasBias || parts.hasActivation) return undefined;
  const [x_MK, weight] = parts.operands;
  return packedProduct(x_MK, weight, parts.isTransposed, bias_N);
}

/** The product with an activation of its results, if it is a packed one that has none. */
export function withActivation(
  product: GraphTensor,
  activation: PackedActivation,
): GraphTensor | undefined {
  const parts = packedParts(product);
  if (parts === undefined || parts.hasActivation) return undefined;
  const [x_MK, weight, bias_N] = parts.operands;
  return packedProduct(x_MK, weight, parts.isTransposed, bias_N, activation);
}
