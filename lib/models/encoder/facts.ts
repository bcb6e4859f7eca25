import { type ModelFacts, usualKeys } from "#lib/models/model-facts";

/** BERT and RoBERTa, but for what their types say otherwise. */
export const encoderFacts = ({
  padTokenId,
  ...own
}: Pick<ModelFacts, "modelType" | "className" | "classifier" | "positionsFollowPadding"> &
  Pick<ModelFacts, "usesTokenTypes"> &
  Partial<Pick<ModelFacts, "unusedPrefix">> & { readonly padTokenId: number }): ModelFacts => ({
  isEncoder: true,
  basePrefix: `${own.modelType}.`,
  baseParts: ["embeddings", "encoder", "pooler"],
  tokenEmbedding: `${own.modelType}.embeddings.word_embeddings.weight`,
  embeddingModules: ["word_embeddings", "position_embeddings", "token_type_embeddings"],
  tiesHead: false,
  keys: usualKeys,
  defaults: { width: 768, positions: 512, padTokenId },
  dropouts: {
    embeddings: { keys: ["hidden_dropout_prob"], rate: 0.1 },
    attention: { keys: ["attention_probs_dropout_prob"], rate: 0.1 },
    residual: { keys: ["hidden_dropout_prob"], rate: 0.1 },
    classifier: { keys: ["classifier_dropout", "hidden_dropout_prob"], rate: 0.1 },
  },
  adapterTargets: ["query", "value"],
  bottlenecks: {
    attention: `${own.modelType}.encoder.layer.*.attention.output`,
    feedForward: `${own.modelType}.encoder.layer.*.output`,
  },
  ...own,
});
