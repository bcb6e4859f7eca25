import { toFloat32 } from "#lib/graph/autocast";
import type { GraphTensor } from "#lib/graph/builder";
import { randomHalves } from "#lib/graph/random-bits";
import * as op from "#lib/graph/tf-ops";
import { registerLowering } from "#lib/graph/tracing-backend";
import { xlaTensor } from "#lib/graph/xla-function";
import { AddNoise, type NoiseAttrs, noiseStart, noiseStep } from "#lib/ops/index";

registerLowering(AddNoise, ({ graph }, inputs, attrs) => {
  const x = inputs["x"] as GraphTensor;
  const { seed, site } = attrs as NoiseAttrs;
  const halves = randomHalves(op.numElements(x.shape), {
    key: [seed, site],
    firstGroup: 0,
    coordinates: inputs["coordinates"] as GraphTensor,
    after: x.node,
  });
  return xlaTensor(graph, AddNoise, [x, halves, inputs["magnitude"] as GraphTensor], (args) => {
    const [body, bits, magnitude] = args as [GraphTensor, GraphTensor, GraphTensor];
    const all = op.reshape(bits, [op.numElements(bits.shape)]);
    const ofX = op.reshape(op.slice(all, [0], [op.numElements(x.shape)]), x.shape);
    const { graph: inner } = body.node;
    const scaled = op.mul(op.cast(ofX, "float32"), op.scalar(inner, noiseStep));
    const noise = op.add(scaled, op.scalar(inner, noiseStart));
    return op.add(toFloat32(body), op.mul(noise, magnitude));
  });
});
