import { promote } from "#lib/graph/autocast";
import type { GraphTensor } from "#lib/graph/builder";
import * as op from "#lib/graph/tf-ops";
import { registerLowering } from "#lib/graph/tracing-backend";
import { SwiGlu, SwiGluGrad } from "#lib/ops/index";

// The gate stays in the type of its operands: a bfloat16 sigmoid rounds once, as torch's silu does.
registerLowering(SwiGlu, (_, inputs) => {
  const [gate, up] = promote(SwiGlu, [inputs["gate"] as GraphTensor, inputs["up"] as GraphTensor]);
  const silu = op.mul(gate as GraphTensor, op.unary("Sigmoid", gate as GraphTensor));
  return op.mul(silu, up as GraphTensor);
});

// With s = sigmoid(gate): d up = dy * gate * s, d gate = dy * up * s * (1 + gate * (1 - s)).
registerLowering(SwiGluGrad, (_, inputs) => {
  const [dy, gate, up] = promote(SwiGluGrad, [
    inputs["dy"] as GraphTensor,
    inputs["gate"] as GraphTensor,
    inputs["up"] as GraphTensor,
  ]) as [GraphTensor, GraphTensor, GraphTensor];
  const sigmoid = op.unary("Sigmoid", gate);
  const silu = op.mul(gate, sigmoid);
  const one = op.scalar(gate.node.graph, 1, gate.dtype);
  // s * (1 + gate * (1 - s)) = s + silu * (1 - s)
  const slope = op.add(sigmoid, op.mul(silu, op.sub(one, sigmoid)));
  return [op.mul(op.mul(dy, up), slope), op.mul(dy, silu)];
});
