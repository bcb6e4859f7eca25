import { toFloat32 } from "#lib/graph/autocast";
import type { GraphTensor } from "#lib/graph/builder";
import * as op from "#lib/graph/tf-ops";
import { registerLowering } from "#lib/graph/tracing-backend";
import { Gelu, type GeluForm, GeluGrad, geluQuickSlope, geluTanh } from "#lib/ops/index";

const one = (x: GraphTensor): GraphTensor => op.scalar(x.node.graph, 1);
const times = (x: GraphTensor, factor: number): GraphTensor =>
  op.mul(x, op.scalar(x.node.graph, factor));

/** The share of x that passes, in float32: y = x * gate(x). Forward and backward share its nodes. */
function gate(x: GraphTensor, form: GeluForm): GraphTensor {
  if (form === "quick") return op.unary("Sigmoid", times(x, geluQuickSlope));
  const rising = form === "erf" ? op.unary("Erf", times(x, Math.SQRT1_2)) : tanhOf(x);
  return times(op.add(rising, one(x)), 0.5);
}

function tanhOf(x: GraphTensor): GraphTensor {
  const cubed = times(op.mul(op.unary("Square", x), x), geluTanh.cubic);
  return op.unary("Tanh", times(op.add(x, cubed), geluTanh.scale));
}

/** d gate / dx. */
function gateSlope(x: GraphTensor, form: GeluForm): GraphTensor {
  switch (form) {
    case "quick": {
      const sigmoid = gate(x, form);
      return times(op.mul(sigmoid, op.sub(one(x), sigmoid)), geluQuickSlope);
    }
    case "erf":
      // The density of the normal distribution.
      return times(op.unary("Exp", times(op.unary("Square", x), -0.5)), 1 / Math.sqrt(2 * Math.PI));
    case "tanh": {
      const inner = op.add(times(op.unary("Square", x), 3 * geluTanh.cubic), one(x));
      const fall = op.sub(one(x), op.unary("Square", tanhOf(x)));
      return times(op.mul(fall, inner), geluTanh.scale / 2);
    }
  }
}

// In float32 inside, rounded once at the end, as torch does under autocast.
registerLowering(Gelu, (_, inputs, attrs) => {
  const x = toFloat32(inputs["x"] as GraphTensor);
  const y = op.mul(x, gate(x, attrs["form"] as GeluForm));
  return op.cast(y, (inputs["x"] as GraphTensor).dtype);
});

registerLowering(GeluGrad, (_, inputs, attrs) => {
  const form = attrs["form"] as GeluForm;
  const x = toFloat32(inputs["x"] as GraphTensor);
  const slope = op.add(gate(x, form), op.mul(x, gateSlope(x, form)));
  const dx = op.mul(toFloat32(inputs["dy"] as GraphTensor), slope);
  return op.cast(dx, (inputs["x"] as GraphTensor).dtype);
});
