import { decoderBottlenecks, decoderFacts } from "#lib/models/decoder/facts";

export const llama = decoderFacts({
  modelType: "llama",
  className: "Llama",
  maxPositions: 2048,
  bottlenecks: decoderBottlenecks,
});
