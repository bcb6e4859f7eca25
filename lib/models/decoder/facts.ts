import { type ModelFacts, usualKeys } from "#lib/models/model-facts";

export const basePrefix = "model.";
export const tokenEmbedding = `${basePrefix}embed_tokens.weight`;
export const scoreModule = "score";

export const attentionDropout: ModelFacts["dropouts"] = {
  attention: { keys: ["attention_dropout"], rate: 0 },
};

/** Those of AdapterHub's library, which has two types of the family. */
export const decoderBottlenecks: NonNullable<ModelFacts["bottlenecks"]> = {
  attention: `${basePrefix}layers.*.attention_adapters`,
  feedForward: `${basePrefix}layers.*.output_adapters`,
};

/** A model of Llama's family, but for what its type says otherwise. */
export const decoderFacts = ({
  padTokenId,
  maxPositions,
  ...own
}: Pick<ModelFacts, "modelType" | "className"> &
  Partial<
    Pick<ModelFacts, "adapterTargets" | "bottlenecks" | "dropouts" | "scalesTokens" | "tiesHead">
  > & {
    readonly maxPositions: number;
    readonly padTokenId?: number;
  }): ModelFacts => ({
  isEncoder: false,
  basePrefix,
  baseParts: ["embed_tokens", "layers", "norm"],
  tokenEmbedding,
  embeddingModules: ["embed_tokens"],
  tiesHead: false,
  keys: usualKeys,
  defaults: { positions: maxPositions, padTokenId: padTokenId ?? null },
  positionsFollowPadding: false,
  usesTokenTypes: false,
  classifier: { dense: [], output: scoreModule, outputHasBias: false },
  dropouts: attentionDropout,
  adapterTargets: ["q_proj", "v_proj"],
  ...own,
});
