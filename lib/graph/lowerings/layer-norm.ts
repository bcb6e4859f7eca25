// Shape legend: M rows (leading dimensions, flattened), D model width.
import { toFloat32 } from "#lib/graph/autocast";
import type { GraphTensor } from "#lib/graph/builder";
import * as op from "#lib/graph/tf-ops";
import { registerLowering } from "#lib/graph/tracing-backend";
import { xlaFunction, xlaTensor } from "#lib/graph/xla-function";
import { LayerNorm, LayerNormGrad } from "#lib/ops/index";

/** Float32; backward computes them again from x, which costs less than keeping them. */
function statistics(x: GraphTensor, epsilon: number) {
  const width = x.shape.at(-1) as number;
  const x_MD = op.reshape(toFloat32(x), [op.numElements(x.shape) / width, width]);
  const centred_MD = op.sub(x_MD, op.reduce("Mean", x_MD, [1], true));
  const variance_M1 = op.reduce("Mean", op.unary("Square", centred_MD), [1], true);
  const inverse_M1 = op.unary("Rsqrt", op.add(variance_M1, op.scalar(x.node.graph, epsilon)));
  return { inverse_M1, normalised_MD: op.mul(centred_MD, inverse_M1) };
}

registerLowering(LayerNorm, ({ graph, autocast }, inputs, attrs) => {
  const body = (args: readonly GraphTensor[]): GraphTensor => {
    const [x, weight_D, bias_D] = args as [GraphTensor, GraphTensor, GraphTensor];
    const { normalised_MD } = statistics(x, attrs["epsilon"] as number);
    const y_MD = op.add(op.mul(normalised_MD, toFloat32(weight_D)), toFloat32(bias_D));
    return op.reshape(op.cast(y_MD, autocast.compute), x.shape);
  };
  const operands = [inputs["x"], inputs["weight"], inputs["bias"]] as GraphTensor[];
  return xlaTensor(graph, LayerNorm, operands, body);
});

// With n the normalised rows, r = 1/deviation and g = dy * w:
// dx = r * (g - mean(g) - n * mean(g * n)), dw = sum over rows of dy * n, db = sum over rows of dy.
registerLowering(LayerNormGrad, ({ graph }, inputs, attrs) => {
  const body = (args: readonly GraphTensor[]): GraphTensor[] => {
    const [dy, x, weight_D] = args as [GraphTensor, GraphTensor, GraphTensor];
    const { inverse_M1, normalised_MD } = statistics(x, attrs["epsilon"] as number);
    const dy_MD = op.reshape(toFloat32(dy), normalised_MD.shape);
    const g_MD = op.mul(dy_MD, toFloat32(weight_D));
    const mean_M1 = op.reduce("Mean", g_MD, [1], true);
    const along_M1 = op.reduce("Mean", op.mul(g_MD, normalised_MD), [1], true);
    const across_MD = op.sub(op.sub(g_MD, mean_M1), op.mul(normalised_MD, along_M1));
    const dx_MD = op.mul(across_MD, inverse_M1);
    return [
      op.reshape(op.cast(dx_MD, x.dtype), x.shape),
      op.reduce("Sum", op.mul(dy_MD, normalised_MD), [0], false),
      op.reduce("Sum", dy_MD, [0], false),
    ];
  };
  const operands = [inputs["dy"], inputs["x"], inputs["weight"]] as GraphTensor[];
  return xlaFunction(graph, LayerNormGrad, operands, body);
});
