import { toFloat32 } from "#lib/graph/autocast";
import type { GraphTensor } from "#lib/graph/builder";
import * as op from "#lib/graph/tf-ops";
import { registerLowering } from "#lib/graph/tracing-backend";
import { xlaTensor } from "#lib/graph/xla-function";
import { Gelu, type GeluForm, GeluGrad, geluQuickSlope, geluTanh } from "#lib/ops/index";

const number = (x: GraphTensor, value: number): GraphTensor => op.scalar(x.node.graph, value);
const times = (x: GraphTensor, factor: number): GraphTensor => op.mul(x, number(x, factor));

/** (1 + tanh(u)) / 2 = sigmoid(2 u), and 2 u = x (slope + cubic x^2). */
const slope = 2 * geluTanh.scale;
const cubic = slope * geluTanh.cubic;

/** The share of x that passes, y = x * gate(x). */
function gate(x: GraphTensor, form: GeluForm): GraphTensor {
  switch (form) {
    case "erf":
      return times(op.add(op.unary("Erf", times(x, Math.SQRT1_2)), number(x, 1)), 0.5);
    case "quick":
      return op.unary("Sigmoid", times(x, geluQuickSlope));
    case "tanh": {
      const steepness = op.add(times(op.unary("Square", x), cubic), number(x, slope));
      return op.unary("Sigmoid", op.mul(x, steepness));
    }
  }
}

/** x * d gate / dx. */
function gateChange(x: GraphTensor, form: GeluForm): GraphTensor {
  if (form === "erf") {
    // The density of the normal distribution.
    const density = op.unary("Exp", times(op.unary("Square", x), -0.5));
    return op.mul(x, times(density, 1 / Math.sqrt(2 * Math.PI)));
  }
  const passing = gate(x, form);
  const y = op.mul(x, passing);
  const fall = op.mul(y, op.sub(number(x, 1), passing));
  if (form === "quick") return times(fall, geluQuickSlope);
  return op.mul(fall, op.add(times(op.unary("Square", x), 3 * cubic), number(x, slope)));
}

// In float32 inside, rounded once at the end, as torch does under autocast.
registerLowering(Gelu, ({ graph }, inputs, attrs) => {
  const body = (args: readonly GraphTensor[]): GraphTensor => {
    const [input] = args as [GraphTensor];
    const x = toFloat32(input);
    return op.cast(op.mul(x, gate(x, attrs["form"] as GeluForm)), input.dtype);
  };
  return xlaTensor(graph, Gelu, [inputs["x"] as GraphTensor], body);
});

registerLowering(GeluGrad, ({ graph }, inputs, attrs) => {
  const form = attrs["form"] as GeluForm;
  const body = (args: readonly GraphTensor[]): GraphTensor => {
    const [dy, input] = args as [GraphTensor, GraphTensor];
    const x = toFloat32(input);
    const change = op.add(gate(x, form), gateChange(x, form));
    return op.cast(op.mul(toFloat32(dy), change), input.dtype);
  };
  const { dy, x } = inputs as { readonly dy: GraphTensor; readonly x: GraphTensor };
  return xlaTensor(graph, GeluGrad, [dy, x], body);
});
