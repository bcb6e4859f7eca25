/** What an engine has to know of a job of virtual tokens, beside its two spaces. */
export interface PromptJob {
  readonly kind: "prompt";
  readonly numVirtualTokens: number;
  /** Rows of the model's table of tokens; the ids of virtual tokens follow. */
  readonly vocabSize: number;
}

/** The name of the virtual tokens' vectors [P, D] in the trained space, and in peft's file. */
export const promptWeightName = "prompt_embeddings";
