// Shape legend: B batch, T tokens, N heads, H head width.
import { toFloat32 } from "#lib/graph/autocast";
import type { GraphTensor } from "#lib/graph/builder";
import * as op from "#lib/graph/tf-ops";
import { registerLowering } from "#lib/graph/tracing-backend";
import { Rotary } from "#lib/ops/index";

// Angles and products are float32: a bfloat16 cosine would shift far positions against each other.
registerLowering(Rotary, (_, inputs, attrs) => {
  const x_BTNH = inputs["x"] as GraphTensor;
  const [b, t, n, h] = x_BTNH.shape as [number, number, number, number];
  const half = h / 2;
  const cos_T1H = op.reshape(toFloat32(inputs["cos"] as GraphTensor), [t, 1, half]);
  const forwardSin = op.reshape(toFloat32(inputs["sin"] as GraphTensor), [t, 1, half]);
  const sin_T1H = attrs["inverse"] === true ? op.unary("Neg", forwardSin) : forwardSin;
  const wide = toFloat32(x_BTNH);
  const first = op.slice(wide, [0, 0, 0, 0], [b, t, n, half]);
  const second = op.slice(wide, [0, 0, 0, half], [b, t, n, half]);
  const turned = op.concat(
    [
      op.sub(op.mul(first, cos_T1H), op.mul(second, sin_T1H)),
      op.add(op.mul(second, cos_T1H), op.mul(first, sin_T1H)),
    ],
    3,
  );
  return op.cast(turned, x_BTNH.dtype);
});
