// Shape legend: M rows, N outputs and K inputs of a linear map, R rank of its adapter.
import { toFloat32 } from "#lib/graph/autocast";
import type { GraphTensor } from "#lib/graph/builder";
import * as op from "#lib/graph/tf-ops";
import { registerLowering } from "#lib/graph/tracing-backend";
import { xlaFunction, xlaTensor } from "#lib/graph/xla-function";
import { DirectionNorm, ScaleColumns, ScaleColumnsGrad } from "#lib/ops/index";

// Squares and sums are float32, of a weight that is read as it is stored.
registerLowering(DirectionNorm, ({ graph }, inputs, attrs) => {
  const scale = attrs["scale"] as number;
  const operands = [inputs["weight"], inputs["wa"], inputs["baa"], inputs["b"]] as GraphTensor[];
  return xlaTensor(graph, DirectionNorm, operands, (args) => {
    const [weight, wa_NR, baa_NR, b_NR] = args.map(toFloat32) as [
      GraphTensor,
      GraphTensor,
      GraphTensor,
      GraphTensor,
    ];
    const times = (x: GraphTensor, factor: number): GraphTensor =>
      op.mul(x, op.scalar(x.node.graph, factor));
    const axis = attrs["isInputMajor"] === true ? 0 : 1;
    const square_N = op.reduce("Sum", op.unary("Square", weight), [axis], false);
    const cross_NR = op.add(times(wa_NR, 2 * scale), times(baa_NR, scale * scale));
    const added_N = op.reduce("Sum", op.mul(cross_NR, b_NR), [1], false);
    return op.unary("Sqrt", op.unary("Relu", op.add(square_N, added_N)));
  });
});

registerLowering(ScaleColumns, ({ graph }, inputs) => {
  const operands = [inputs["x"], inputs["scale"]] as GraphTensor[];
  return xlaTensor(graph, ScaleColumns, operands, ([x, scale_N]) => {
    const product = op.mul(toFloat32(x as GraphTensor), toFloat32(scale_N as GraphTensor));
    return op.cast(product, (x as GraphTensor).dtype);
  });
});

registerLowering(ScaleColumnsGrad, ({ graph }, inputs) => {
  const operands = [inputs["dy"], inputs["x"], inputs["scale"]] as GraphTensor[];
  return xlaFunction(graph, ScaleColumnsGrad, operands, (args) => {
    const [dy, x, scale_N] = args as [GraphTensor, GraphTensor, GraphTensor];
    const width = x.shape.at(-1) as number;
    const shape = [op.numElements(x.shape) / width, width];
    const [dy_MN, x_MN] = [dy, x].map((each) => op.reshape(toFloat32(each), shape)) as [
      GraphTensor,
      GraphTensor,
    ];
    const dx_MN = op.mul(dy_MN, toFloat32(scale_N));
    const ds_N = op.reduce("Sum", op.mul(dy_MN, x_MN), [0], false);
    return [op.reshape(op.cast(dx_MN, x.dtype), x.shape), ds_N];
  });
});
