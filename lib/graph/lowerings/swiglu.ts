import { promote, toFloat32 } from "#lib/graph/autocast";
import type { GraphTensor } from "#lib/graph/builder";
import * as op from "#lib/graph/tf-ops";
import { registerLowering } from "#lib/graph/tracing-backend";
import { xlaFunction, xlaTensor } from "#lib/graph/xla-function";
import { SwiGlu, SwiGluGrad } from "#lib/ops/index";

// In float32 inside, rounded once at the end.
registerLowering(SwiGlu, ({ graph }, inputs) => {
  const operands = promote(SwiGlu, [inputs["gate"] as GraphTensor, inputs["up"] as GraphTensor]);
  return xlaTensor(graph, SwiGlu, operands, (args) => {
    const [gate, up] = args.map(toFloat32) as [GraphTensor, GraphTensor];
    const silu = op.mul(gate, op.unary("Sigmoid", gate));
    return op.cast(op.mul(silu, up), (operands[0] as GraphTensor).dtype);
  });
});

// With s = sigmoid(gate): d up = dy * gate * s, d gate = dy * up * s * (1 + gate * (1 - s)).
registerLowering(SwiGluGrad, ({ graph }, inputs) => {
  const operands = promote(SwiGluGrad, [
    inputs["dy"] as GraphTensor,
    inputs["gate"] as GraphTensor,
    inputs["up"] as GraphTensor,
  ]);
  return xlaFunction(graph, SwiGluGrad, operands, (args) => {
    const [dy, gate, up] = args.map(toFloat32) as [GraphTensor, GraphTensor, GraphTensor];
    const sigmoid = op.unary("Sigmoid", gate);
    const silu = op.mul(gate, sigmoid);
    const one = op.scalar(gate.node.graph, 1);
    // s * (1 + gate * (1 - s)) = s + silu * (1 - s)
    const slope = op.add(sigmoid, op.mul(silu, op.sub(one, sigmoid)));
    const { dtype } = operands[0] as GraphTensor;
    return [op.cast(op.mul(op.mul(dy, up), slope), dtype), op.cast(op.mul(dy, silu), dtype)];
  });
});
