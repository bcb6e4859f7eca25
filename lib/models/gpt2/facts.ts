import type { ModelFacts } from "#lib/models/model-facts";

export const gpt2: ModelFacts = {
  modelType: "gpt2",
  className: "GPT2",
  isEncoder: false,
  basePrefix: "transformer.",
  baseParts: ["wte", "wpe", "h", "ln_f"],
  tokenEmbedding: "transformer.wte.weight",
  embeddingModules: ["wte", "wpe"],
  tiesHead: true,
  // Newer names of the same keys are read too, as transformers maps them.
  keys: {
    width: ["n_embd", "hidden_size"],
    layers: ["n_layer", "num_hidden_layers"],
    heads: ["n_head", "num_attention_heads"],
    positions: ["n_positions", "max_position_embeddings"],
  },
  defaults: { width: 768, positions: 1024, padTokenId: null },
  positionsFollowPadding: false,
  usesTokenTypes: false,
  classifier: { dense: [], output: "score", outputHasBias: false },
  dropouts: {
    embeddings: { keys: ["embd_pdrop"], rate: 0.1 },
    attention: { keys: ["attn_pdrop"], rate: 0.1 },
    residual: { keys: ["resid_pdrop"], rate: 0.1 },
  },
  adapterTargets: ["c_attn"],
  bottlenecks: {
    attention: "transformer.h.*.attention_adapters",
    feedForward: "transformer.h.*.output_adapters",
  },
  inputMajorPrefix: "transformer.",
};
