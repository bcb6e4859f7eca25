import { toFloat32 } from "#lib/graph/autocast";
import type { GraphTensor } from "#lib/graph/builder";
import { withBias } from "#lib/graph/packed-product";
import * as op from "#lib/graph/tf-ops";
import { registerLowering } from "#lib/graph/tracing-backend";
import { xlaTensor } from "#lib/graph/xla-function";
import { AddBias, AddBiasGrad } from "#lib/ops/index";

registerLowering(AddBias, (_, inputs) => {
  const x = inputs["x"] as GraphTensor;
  const bias_N = op.cast(inputs["bias"] as GraphTensor, x.dtype);
  return withBias(x, bias_N) ?? op.add(x, bias_N);
});

// A float32 sum of bfloat16 rows, without a float32 copy of them.
registerLowering(AddBiasGrad, ({ graph }, inputs) =>
  xlaTensor(graph, AddBiasGrad, [inputs["dy"] as GraphTensor], ([dy]) => {
    const rows = dy as GraphTensor;
    const width = rows.shape.at(-1) as number;
    const dy_MN = op.reshape(toFloat32(rows), [op.numElements(rows.shape) / width, width]);
    return op.reduce("Sum", dy_MN, [0], false);
  }),
);
