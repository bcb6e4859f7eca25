import { decoderFacts } from "#lib/models/decoder/facts";

export const gemma3 = decoderFacts({
  modelType: "gemma3_text",
  className: "Gemma3Text",
  maxPositions: 131_072,
  padTokenId: 0,
  scalesTokens: true,
  tiesHead: true,
});
