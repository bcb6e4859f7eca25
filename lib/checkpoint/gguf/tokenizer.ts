import { LockstepError } from "#lib/core/errors/index";
import { byteLevelParts } from "./byte-level.js";
import { GgufMetadata } from "./metadata.js";
import type { GgufFile } from "./reader.js";
import { sentencePieceParts } from "./sentencepiece.js";
import { type TokenizerParts, tokenType, type Vocabulary } from "./vocabulary.js";

/** Token ids that config.json and generation_config.json name. */
export interface SpecialTokenIds {
  readonly bos: number | null;
  readonly eos: number | null;
  readonly pad: number | null;
}

interface ImportedTokenizer {
  readonly tokenizer: Readonly<Record<string, unknown>>;
  readonly tokenizerConfig: Readonly<Record<string, unknown>>;
  readonly specialTokensMap: Readonly<Record<string, string>>;
  readonly chatTemplate: string | undefined;
  readonly ids: SpecialTokenIds;
}

/** Kinds of tokenizers by llama.cpp's names (`tokenizer.ggml.model`). */
const kinds: Readonly<
  Record<string, (metadata: GgufMetadata, vocabulary: Vocabulary) => TokenizerParts>
> = Object.freeze({ gpt2: byteLevelParts, llama: sentencePieceParts });

/**
 * Rebuilds a tokenizer from GGUF metadata, in the forms that `tokenizers` and both
 * generations of transformers read. `vocabSize` is the number of embedding rows.
 */
export function readTokenizer(gguf: GgufFile, vocabSize: number): ImportedTokenizer {
  const metadata = new GgufMetadata(gguf);
  const fail = (problem: string): never => {
    throw new LockstepError("E_GGUF_TOKENIZER", { file: gguf.file, problem });
  };
  const kind = metadata.optionalString("tokenizer.ggml.model") ?? "none";
  const readParts = Object.hasOwn(kinds, kind)
    ? (kinds[kind] as (typeof kinds)[string])
    : fail(`it is of kind "${kind}"; "gpt2" (byte-level BPE) and "llama" (SentencePiece) are read`);
  const tokens = metadata.optionalStrings("tokenizer.ggml.tokens") ?? fail("it has no tokens");
  if (tokens.length === 0 || tokens.length > vocabSize) {
    fail(`it has ${tokens.length} tokens, but the embedding has ${vocabSize} rows`);
  }
  const vocab = new Map(tokens.map((token, id) => [token, id]));
  if (vocab.size !== tokens.length)
    fail(`${tokens.length - vocab.size} of its tokens appear twice`);
  const types = metadata.optionalNumbers("tokenizer.ggml.token_type") ?? [];
  if (types.length !== 0 && types.length !== tokens.length) {
    fail(`it has ${tokens.length} tokens, but ${types.length} token types`);
  }
  const id = (name: string): number | null =>
    metadata.optionalInteger(`tokenizer.ggml.${name}_token_id`, 0, tokens.length - 1) ?? null;
  const ids = { bos: id("bos"), eos: id("eos"), pad: id("padding") };
  const unknownId = id("unknown");
  const vocabulary: Vocabulary = { tokens, types, vocab, bosId: ids.bos, unknownId, fail };
  const addedTokens = readAddedTokens(vocabulary);
  const chatTemplate = metadata.optionalString("tokenizer.chat_template");
  const content = (tokenId: number | null): string | undefined =>
    tokenId === null ? undefined : tokens[tokenId];
  const named = {
    bos_token: content(ids.bos),
    eos_token: content(ids.eos),
    unk_token: content(unknownId),
    pad_token: content(ids.pad),
  };
  const specialTokensMap = Object.fromEntries(
    Object.entries(named).filter((item): item is [string, string] => item[1] !== undefined),
  );
  return {
    ids,
    chatTemplate,
    specialTokensMap,
    tokenizer: {
      version: "1.0",
      truncation: null,
      padding: null,
      added_tokens: addedTokens,
      ...readParts(metadata, vocabulary),
    },
    tokenizerConfig: {
      // The base class takes tokenizer.json as it is, in v4 and v5; a named class (GPT2Tokenizer)
      // would build its own pre-tokenizer in v5.
      tokenizer_class: "PreTrainedTokenizerFast",
      ...specialTokensMap,
      added_tokens_decoder: Object.fromEntries(
        addedTokens.map(({ id: tokenId, ...token }) => [String(tokenId), token]),
      ),
      clean_up_tokenization_spaces: false,
      // v4's base class would also give token_type_ids, which a Llama refuses.
      model_input_names: ["input_ids", "attention_mask"],
      model_max_length: metadata.integer("llama.context_length", 1, 1e9),
      ...(chatTemplate === undefined ? {} : { chat_template: chatTemplate }),
    },
  };
}

interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly single_word: boolean;
  readonly lstrip: boolean;
  readonly rstrip: boolean;
  readonly normalized: boolean;
  readonly special: boolean;
}

/** Control tokens are special; user-defined ones are matched whole too, but stay when decoding. */
function readAddedTokens({ tokens, types, fail }: Vocabulary): readonly AddedToken[] {
  const added: AddedToken[] = [];
  for (const [id, type] of types.entries()) {
    const isSpecial = type === tokenType.control || type === tokenType.unknown;
    if (!isSpecial && type !== tokenType.userDefined) continue;
    const content = tokens[id] as string;
    if (content === "") fail(`its special token ${id} is empty`);
    const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false };
    added.push({ id, content, ...flags, special: isSpecial });
  }
  return added;
}
