import { toFloat32 } from "#lib/graph/autocast";
import type { GraphTensor } from "#lib/graph/builder";
import { type PackedActivation, withActivation } from "#lib/graph/packed-product";
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

/** The operands of an added bias, which the function adds itself; else x alone. */
function operandsOf(x: GraphTensor): readonly GraphTensor[] {
  const [product, bias] = x.node.op === "AddV2" ? x.node.inputs : [];
  const isBiased = product?.shape.length === x.shape.length && bias?.shape.length === 1;
  return isBiased ? x.node.inputs : [x];
}

const sumOf = (operands: readonly GraphTensor[]): GraphTensor =>
  operands.map(toFloat32).reduce((a, b) => op.add(a, b));

const packedForms: Readonly<Partial<Record<GeluForm, PackedActivation>>> = {
  tanh: "GeluApproximate",
  erf: "GeluExact",
};

// In float32 inside, rounded once at the end, as torch does under autocast.
registerLowering(Gelu, ({ graph }, inputs, attrs) => {
  const input = inputs["x"] as GraphTensor;
  const packed = packedForms[attrs["form"] as GeluForm];
  const fused = packed === undefined ? undefined : withActivation(input, packed);
  if (fused !== undefined) return fused;
  return xlaTensor(graph, Gelu, operandsOf(input), (args) => {
    const x = sumOf(args);
    return op.cast(op.mul(x, gate(x, attrs["form"] as GeluForm)), input.dtype);
  });
});

registerLowering(GeluGrad, ({ graph }, inputs, attrs) => {
  const form = attrs["form"] as GeluForm;
  const { dy, x: input } = inputs as { readonly dy: GraphTensor; readonly x: GraphTensor };
  return xlaTensor(graph, GeluGrad, [dy, ...operandsOf(input)], ([gradient, ...operands]) => {
    const x = sumOf(operands);
    const change = op.add(gate(x, form), gateChange(x, form));
    return op.cast(op.mul(toFloat32(gradient as GraphTensor), change), input.dtype);
  });
});
