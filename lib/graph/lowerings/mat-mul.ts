import { toCompute } from "#lib/graph/autocast";
import type { GraphTensor } from "#lib/graph/builder";
import { madeFor } from "#lib/graph/on-demand";
import { packedProduct } from "#lib/graph/packed-product";
import * as op from "#lib/graph/tf-ops";
import { registerLowering, type Tracer } from "#lib/graph/tracing-backend";

registerLowering("BatchMatMul", (tracer, inputs, attrs) => {
  const a = toCompute(tracer.autocast, inputs["a"] as GraphTensor);
  const b = toCompute(tracer.autocast, madeFor(inputs["b"] as GraphTensor, a));
  const [transposeA, transposeB] = [attrs["transposeA"] === true, attrs["transposeB"] === true];
  const weight = transposeA ? undefined : packableWeight(tracer, a, b);
  if (weight === undefined) return op.matMul(a, b, transposeA, transposeB);
  return packedProduct(a, weight, (weight !== b) !== transposeB);
});

/** The variable that an operand reads, where the product may keep a packed copy of it. */
function packableWeight(tracer: Tracer, a: GraphTensor, b: GraphTensor): GraphTensor | undefined {
  if (tracer.packsWeights !== true || a.shape.length !== 2 || b.shape.length !== 2)
    return undefined;
  const source = b.node.op === "Transpose" ? (b.node.inputs[0] as GraphTensor) : b;
  return source.node.op === "ReadVariableOp" ? source : undefined;
}
