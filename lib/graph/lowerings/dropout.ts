import { toFloat32 } from "#lib/graph/autocast";
import type { GraphNode, GraphTensor } from "#lib/graph/builder";
import { randomHalves } from "#lib/graph/random-bits";
import * as op from "#lib/graph/tf-ops";
import { registerLowering } from "#lib/graph/tracing-backend";
import { xlaTensor } from "#lib/graph/xla-function";
import { Dropout, type DropoutAttrs, DropoutGrad, keptScale } from "#lib/ops/index";

/** The random bits of a dropout's mask and the number that decides by them. */
export interface MaskBits {
  /** uint16 [words, 2], a half for each element of what is dropped. */
  readonly halves: GraphTensor;
  readonly threshold: number;
}

/** @param after what the bits wait for: something that is computed only shortly before */
export const maskBits = (
  shape: readonly number[],
  coordinates: GraphTensor,
  { seed, site, threshold }: DropoutAttrs,
  after: GraphNode,
  firstGroup = 0,
): MaskBits => ({
  halves: randomHalves(op.numElements(shape), {
    key: [seed, site],
    firstGroup,
    coordinates,
    after,
  }),
  threshold,
});

/** x / (1 - rate) where the mask keeps it, else 0, in float32: for the body of a function. */
export function masked(x: GraphTensor, { halves, threshold }: MaskBits): GraphTensor {
  const graph = x.node.graph;
  const all = op.reshape(halves, [op.numElements(halves.shape)]);
  const ofX = op.reshape(op.slice(all, [0], [op.numElements(x.shape)]), x.shape);
  const keeps = op.greaterEqual(op.cast(ofX, "int32"), op.intScalar(graph, threshold));
  const scaled = op.mul(toFloat32(x), op.scalar(graph, keptScale({ threshold })));
  return op.select(keeps, scaled, op.scalar(graph, 0));
}

/** The same as a function, in the type of x. */
export const dropped = (x: GraphTensor, { halves, threshold }: MaskBits): GraphTensor =>
  xlaTensor(x.node.graph, Dropout, [x, halves], (args) => {
    const [body, bits] = args as [GraphTensor, GraphTensor];
    return op.cast(masked(body, { halves: bits, threshold }), x.dtype);
  });

// What is dropped has no gradient, and the rest is scaled alike: both directions are one operation.
for (const [kernel, operand] of [
  [Dropout, "x"],
  [DropoutGrad, "dy"],
] as const) {
  registerLowering(kernel, (_, inputs, attrs) => {
    const x = inputs[operand] as GraphTensor;
    const coordinates = inputs["coordinates"] as GraphTensor;
    return dropped(x, maskBits(x.shape, coordinates, attrs as DropoutAttrs, x.node));
  });
}
