// Shape legend: B batch, T tokens, N heads, H head width, R rotated width.
import { toFloat32 } from "#lib/graph/autocast";
import type { GraphTensor } from "#lib/graph/builder";
import * as op from "#lib/graph/tf-ops";
import { registerLowering } from "#lib/graph/tracing-backend";
import { xlaTensor } from "#lib/graph/xla-function";
import { Rotary } from "#lib/ops/index";

// Angles and products are float32: a bfloat16 cosine would shift far positions against each other.
registerLowering(Rotary, ({ graph }, inputs, attrs) => {
  const body = (args: readonly GraphTensor[]): GraphTensor => {
    const [x_BTNH, cos, sin] = args as [GraphTensor, GraphTensor, GraphTensor];
    const [b, t, n, h] = x_BTNH.shape as [number, number, number, number];
    const perHead = (table: GraphTensor): GraphTensor =>
      op.reshape(toFloat32(table), [...table.shape.slice(0, -1), 1, table.shape.at(-1) as number]);
    const cos_T1R = perHead(cos);
    const sin_T1R = attrs["inverse"] === true ? op.unary("Neg", perHead(sin)) : perHead(sin);
    const half = cos_T1R.shape.at(-1) as number;
    const wide = toFloat32(x_BTNH);
    const first = op.slice(wide, [0, 0, 0, 0], [b, t, n, half]);
    const second = op.slice(wide, [0, 0, 0, half], [b, t, n, half]);
    const rest =
      h === 2 * half ? [] : [op.slice(wide, [0, 0, 0, 2 * half], [b, t, n, h - 2 * half])];
    const turned = [
      op.sub(op.mul(first, cos_T1R), op.mul(second, sin_T1R)),
      op.add(op.mul(second, cos_T1R), op.mul(first, sin_T1R)),
    ];
    return op.cast(op.concat([...turned, ...rest], 3), x_BTNH.dtype);
  };
  const operands = [inputs["x"], inputs["cos"], inputs["sin"]] as GraphTensor[];
  return xlaTensor(graph, Rotary, operands, body);
});
