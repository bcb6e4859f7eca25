import { decoderBottlenecks, decoderFacts } from "#lib/models/decoder/facts";

export const mistral = decoderFacts({
  modelType: "mistral",
  className: "Mistral",
  maxPositions: 131_072,
  bottlenecks: decoderBottlenecks,
});
