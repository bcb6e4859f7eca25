import { decoderFacts } from "#lib/models/decoder/facts";

export const gemma2 = decoderFacts({
  modelType: "gemma2",
  className: "Gemma2",
  maxPositions: 8192,
  padTokenId: 0,
  scalesTokens: true,
  tiesHead: true,
});
