import { encoderFacts } from "#lib/models/encoder/facts";

export const bert = encoderFacts({
  modelType: "bert",
  className: "Bert",
  padTokenId: 0,
  positionsFollowPadding: false,
  usesTokenTypes: true,
  classifier: { dense: ["bert.pooler.dense"], output: "classifier", outputHasBias: true },
});
