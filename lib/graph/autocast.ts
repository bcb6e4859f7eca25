import { LockstepError } from "#lib/core/errors/index";
import type { GraphDtype, GraphTensor } from "./builder.js";
import { cast, isFloat } from "./tf-ops.js";

/**
 * Mixed precision as a property of the lowering: tfjs sees float32 everywhere, the graph knows each
 * tensor's real type, and every lowering asks this policy.
 *
 * Matrix products take and give the compute type; softmax, norms, losses and reductions run in
 * float32; elementwise ops promote to the wider operand.
 */
export interface Autocast {
  readonly compute: "float32" | "bfloat16" | "float16";
  /** Whether XLA compiles all of it: then what is bfloat16 rounds at every step within a kernel. */
  readonly xla?: boolean;
}

export const toCompute = (policy: Autocast, x: GraphTensor): GraphTensor =>
  isFloat(x.dtype) ? cast(x, policy.compute) : x;

export const toFloat32 = (x: GraphTensor): GraphTensor =>
  isFloat(x.dtype) ? cast(x, "float32") : x;

/** Whether the tensor is a constant scalar, which takes the other operand's type. */
function isWeak(x: GraphTensor): boolean {
  if (x.shape.length > 0) return false;
  return x.node.op === "Const" || (x.node.op === "Cast" && x.node.inputs[0]?.node.op === "Const");
}

/** Brings the operands of an elementwise op to one type; two different half types meet in float32. */
export function promote(op: string, operands: readonly GraphTensor[]): GraphTensor[] {
  const strong = operands.filter((operand) => !isWeak(operand));
  const deciding = strong.length > 0 ? strong : operands;
  const dtypes = new Set<GraphDtype>(deciding.map((operand) => operand.dtype));
  if (dtypes.size === 1) {
    const [dtype] = dtypes as Set<GraphDtype>;
    if (operands.every((operand) => operand.dtype === dtype)) return [...operands];
    if (isFloat(dtype as GraphDtype) && operands.every((operand) => isFloat(operand.dtype))) {
      return operands.map((operand) => cast(operand, dtype as GraphDtype));
    }
  }
  if (!operands.every((operand) => isFloat(operand.dtype))) {
    // tfjs has cast by its own rules before it calls a kernel, so what is left is a mistake.
    throw new LockstepError("E_GRAPH_DTYPE", {
      op,
      expected: "operands of one type",
      got: operands.map((operand) => operand.dtype).join(" and "),
    });
  }
  return operands.map((operand) => cast(operand, "float32"));
}
