import type { GraphTensor } from "#lib/graph/builder";
import * as op from "#lib/graph/tf-ops";
import { registerLowering } from "#lib/graph/tracing-backend";
import { AddBias } from "#lib/ops/index";

registerLowering(AddBias, (_, inputs) => {
  const x = inputs["x"] as GraphTensor;
  return op.add(x, op.cast(inputs["bias"] as GraphTensor, x.dtype));
});
