import { encoderFacts } from "#lib/models/encoder/facts";

export const roberta = encoderFacts({
  modelType: "roberta",
  className: "Roberta",
  padTokenId: 1,
  positionsFollowPadding: true,
  usesTokenTypes: false,
  unusedPrefix: "roberta.pooler.",
  classifier: {
    dense: ["classifier.dense"],
    output: "classifier.out_proj",
    outputHasBias: true,
  },
});
