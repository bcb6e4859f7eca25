import type { GraphTensor } from "#lib/graph/builder";
import { registerLowering } from "#lib/graph/tracing-backend";
import { BlockEnd, BlockEndGrad, BlockStart } from "#lib/ops/index";

registerLowering(BlockStart, ({ recomputation }, inputs) => {
  const x = inputs["x"] as GraphTensor;
  recomputation?.startBlock(x);
  return x;
});

registerLowering(BlockEnd, ({ recomputation }, inputs) => {
  const x = inputs["x"] as GraphTensor;
  recomputation?.endBlock(x);
  return x;
});

registerLowering(BlockEndGrad, ({ recomputation }, inputs) => {
  const { dy, y } = inputs as { readonly dy: GraphTensor; readonly y: GraphTensor };
  recomputation?.startBackward(y, dy);
  return dy;
});
