/** A tokenizer's tokens and special ids, shared by both kinds. */
export interface Vocabulary {
  readonly tokens: readonly string[];
  /** ggml's type of each token; empty when the file gives none. */
  readonly types: readonly number[];
  readonly vocab: ReadonlyMap<string, number>;
  readonly bosId: number | null;
  readonly unknownId: number | null;
  /** Throws E_GGUF_TOKENIZER. */
  readonly fail: (problem: string) => never;
}

/** What differs between kinds of tokenizers in tokenizer.json. */
export interface TokenizerParts {
  readonly normalizer: unknown;
  readonly pre_tokenizer: unknown;
  readonly post_processor: unknown;
  readonly decoder: unknown;
  readonly model: Readonly<Record<string, unknown>>;
}

/** ggml's token types. */
export const tokenType = Object.freeze({
  normal: 1,
  unknown: 2,
  control: 3,
  userDefined: 4,
  unused: 5,
  byte: 6,
});

/** A post-processor that puts the beginning-of-sequence token first, or null without such a token. */
export function bosTemplate({ tokens, bosId }: Vocabulary): unknown {
  if (bosId === null) return null;
  const bos = tokens[bosId] as string;
  const special = (typeId: number): unknown => ({ SpecialToken: { id: bos, type_id: typeId } });
  const sequence = (name: string, typeId: number): unknown => ({
    Sequence: { id: name, type_id: typeId },
  });
  return {
    type: "TemplateProcessing",
    single: [special(0), sequence("A", 0)],
    pair: [special(0), sequence("A", 0), special(1), sequence("B", 1)],
    special_tokens: { [bos]: { id: bos, ids: [bosId], tokens: [bos] } },
  };
}
