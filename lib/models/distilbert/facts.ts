import type { ModelFacts } from "#lib/models/model-facts";

export const distilbert: ModelFacts = {
  modelType: "distilbert",
  className: "DistilBert",
  isEncoder: true,
  basePrefix: "distilbert.",
  baseParts: ["embeddings", "transformer"],
  tokenEmbedding: "distilbert.embeddings.word_embeddings.weight",
  embeddingModules: ["word_embeddings", "position_embeddings"],
  tiesHead: false,
  // Newer names of the same keys are read too, as transformers maps them.
  keys: {
    width: ["dim", "hidden_size"],
    layers: ["n_layers", "num_hidden_layers"],
    heads: ["n_heads", "num_attention_heads"],
    positions: ["max_position_embeddings"],
  },
  defaults: { width: 768, positions: 512, padTokenId: 0 },
  positionsFollowPadding: false,
  usesTokenTypes: false,
  classifier: { dense: ["pre_classifier"], output: "classifier", outputHasBias: true },
  // Attention's output projection has none, unlike BERT's.
  dropouts: {
    embeddings: { keys: ["dropout"], rate: 0.1 },
    attention: { keys: ["attention_dropout"], rate: 0.1 },
    residual: { keys: ["dropout"], rate: 0.1 },
    classifier: { keys: ["seq_classif_dropout"], rate: 0.2 },
  },
  adapterTargets: [],
  bottlenecks: {
    attention: "distilbert.transformer.layer.*.attention_adapters",
    feedForward: "distilbert.transformer.layer.*.output_adapters",
  },
};
