import { attentionDropout, decoderFacts } from "#lib/models/decoder/facts";

export const phi3 = decoderFacts({
  modelType: "phi3",
  className: "Phi3",
  maxPositions: 4096,
  padTokenId: 32_000,
  dropouts: { ...attentionDropout, residual: { keys: ["resid_pdrop"], rate: 0 } },
  adapterTargets: [],
});
