// Shape legend: B batch, T tokens, N heads, H head width, R rotated width.
import { toFloat32 } from "#lib/graph/autocast";
import type { GraphTensor } from "#lib/graph/builder";
import * as op from "#lib/graph/tf-ops";
import { registerLowering } from "#lib/graph/tracing-backend";
import { Rotary } from "#lib/ops/index";

// Angles and products are float32: a bfloat16 cosine would shift far positions against each other.
registerLowering(Rotary, (_, inputs, attrs) => {
  const x_BTNH = inputs["x"] as GraphTensor;
  const [b, t, n, h] = x_BTNH.shape as [number, number, number, number];
  const table = (input: "cos" | "sin"): GraphTensor => {
    const { shape } = inputs[input] as GraphTensor;
    const headAxis = [...shape.slice(0, -1), 1, shape.at(-1) as number];
    return op.reshape(toFloat32(inputs[input] as GraphTensor), headAxis);
  };
  const cos_T1R = table("cos");
  const half = cos_T1R.shape.at(-1) as number;
  const forwardSin = table("sin");
  const sin_T1R = attrs["inverse"] === true ? op.unary("Neg", forwardSin) : forwardSin;
  const wide = toFloat32(x_BTNH);
  const first = op.slice(wide, [0, 0, 0, 0], [b, t, n, half]);
  const second = op.slice(wide, [0, 0, 0, half], [b, t, n, half]);
  const turned = op.concat(
    [
      op.sub(op.mul(first, cos_T1R), op.mul(second, sin_T1R)),
      op.add(op.mul(second, cos_T1R), op.mul(first, sin_T1R)),
      ...(h === 2 * half ? [] : [op.slice(wide, [0, 0, 0, 2 * half], [b, t, n, h - 2 * half])]),
    ],
    3,
  );
  return op.cast(turned, x_BTNH.dtype);
});
