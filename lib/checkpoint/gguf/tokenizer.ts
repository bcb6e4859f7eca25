import { LockstepError } from "#lib/core/errors/index";
import { GgufMetadata } from "./metadata.js";
import type { GgufFile } from "./reader.js";

/** Token ids that config.json and generation_config.json name. */
export interface SpecialTokenIds {
  readonly bos: number | null;
  readonly eos: number | null;
  readonly pad: number | null;
}

export interface ImportedTokenizer {
  readonly tokenizer: Readonly<Record<string, unknown>>;
  readonly tokenizerConfig: Readonly<Record<string, unknown>>;
  readonly specialTokensMap: Readonly<Record<string, string>>;
  readonly chatTemplate: string | undefined;
  readonly ids: SpecialTokenIds;
}

/** ggml's token types. */
const tokenType = {
  normal: 1,
  unknown: 2,
  control: 3,
  userDefined: 4,
  unused: 5,
  byte: 6,
} as const;

/** Pre-tokenizers by llama.cpp's names (`tokenizer.ggml.pre`), after its `llama-vocab.cpp`. */
const byteLevelGpt2 = { ...byteLevel(), use_regex: true };
const singleDigitsGpt2 = {
  type: "Sequence",
  pretokenizers: [{ type: "Digits", individual_digits: true }, byteLevelGpt2],
};
const llama3Split = splitThenBytes(
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
);
const qwen2Split = splitThenBytes(
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
);
const preTokenizers: Readonly<Record<string, Readonly<Record<string, unknown>>>> = Object.freeze({
  "gpt-2": byteLevelGpt2,
  smollm: singleDigitsGpt2,
  starcoder: singleDigitsGpt2,
  "command-r": singleDigitsGpt2,
  refact: singleDigitsGpt2,
  "llama-bpe": llama3Split,
  llama3: llama3Split,
  qwen2: qwen2Split,
});

function byteLevel(): Readonly<Record<string, unknown>> {
  return { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
}

function splitThenBytes(regex: string): Readonly<Record<string, unknown>> {
  const split = { type: "Split", pattern: { Regex: regex }, behavior: "Isolated", invert: false };
  return { type: "Sequence", pretokenizers: [split, byteLevel()] };
}

/**
 * Rebuilds a byte-level BPE tokenizer from GGUF metadata, in the forms that `tokenizers` and both
 * generations of transformers read. `vocabSize` is the number of embedding rows.
 */
export function readTokenizer(gguf: GgufFile, vocabSize: number): ImportedTokenizer {
  const metadata = new GgufMetadata(gguf);
  const fail = (problem: string): never => {
    throw new LockstepError("E_GGUF_TOKENIZER", { file: gguf.file, problem });
  };
  const model = metadata.optionalString("tokenizer.ggml.model");
  if (model !== "gpt2") {
    fail(
      `it is of kind ${JSON.stringify(model ?? "none")}, and only "gpt2" (byte-level BPE) is read`,
    );
  }
  const pre = metadata.optionalString("tokenizer.ggml.pre") ?? "none";
  const preTokenizer = Object.hasOwn(preTokenizers, pre)
    ? preTokenizers[pre]
    : fail(
        `its pre-tokenizer "${pre}" is not known; known are ${Object.keys(preTokenizers).join(", ")}`,
      );
  const tokens = metadata.optionalStrings("tokenizer.ggml.tokens") ?? fail("it has no tokens");
  if (tokens.length === 0 || tokens.length > vocabSize) {
    fail(`it has ${tokens.length} tokens, but the embedding has ${vocabSize} rows`);
  }
  const vocab = new Map(tokens.map((token, id) => [token, id]));
  if (vocab.size !== tokens.length)
    fail(`${tokens.length - vocab.size} of its tokens appear twice`);
  const merges = readMerges(metadata, vocab, fail);
  const addedTokens = readAddedTokens(metadata, tokens, fail);
  const id = (name: string): number | null =>
    metadata.optionalInteger(`tokenizer.ggml.${name}_token_id`, 0, tokens.length - 1) ?? null;
  const ids = { bos: id("bos"), eos: id("eos"), pad: id("padding") };
  const isLlama3 = preTokenizer === llama3Split;
  const addsBos = metadata.optionalBoolean("tokenizer.ggml.add_bos_token") ?? isLlama3;
  const chatTemplate = metadata.optionalString("tokenizer.chat_template");
  const content = (tokenId: number | null): string | undefined =>
    tokenId === null ? undefined : tokens[tokenId];
  const named = {
    bos_token: content(ids.bos),
    eos_token: content(ids.eos),
    unk_token: content(id("unknown")),
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
      normalizer: null,
      pre_tokenizer: preTokenizer,
      post_processor: postProcessor(addsBos ? ids.bos : null, tokens),
      decoder: { ...byteLevel(), add_prefix_space: true, use_regex: true },
      model: {
        type: "BPE",
        dropout: null,
        unk_token: null,
        continuing_subword_prefix: null,
        end_of_word_suffix: null,
        fuse_unk: false,
        byte_fallback: false,
        ignore_merges: isLlama3,
        vocab: Object.fromEntries(vocab),
        merges,
      },
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

/** Merges as pairs; llama.cpp and `tokenizers` both split at the one space of a merge. */
function readMerges(
  metadata: GgufMetadata,
  vocab: ReadonlyMap<string, number>,
  fail: (problem: string) => never,
): readonly (readonly [string, string])[] {
  const merges = metadata.optionalStrings("tokenizer.ggml.merges") ?? fail("it has no merges");
  return merges.map((merge, rank) => {
    // A space inside a token is written as another character, so only the separator can be one.
    const space = merge.indexOf(" ", 1);
    const [left, right] = [merge.slice(0, space), merge.slice(space + 1)];
    if (space < 0 || !vocab.has(left) || !vocab.has(right) || !vocab.has(left + right)) {
      fail(
        `its merge ${rank} (${JSON.stringify(merge.slice(0, 80))}) joins no two tokens to a third`,
      );
    }
    return [left, right] as const;
  });
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
function readAddedTokens(
  metadata: GgufMetadata,
  tokens: readonly string[],
  fail: (problem: string) => never,
): readonly AddedToken[] {
  const types = metadata.optionalNumbers("tokenizer.ggml.token_type") ?? [];
  if (types.length !== 0 && types.length !== tokens.length) {
    fail(`it has ${tokens.length} tokens, but ${types.length} token types`);
  }
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

function postProcessor(
  bosId: number | null,
  tokens: readonly string[],
): Readonly<Record<string, unknown>> {
  const bytes = { ...byteLevel(), add_prefix_space: true, trim_offsets: false, use_regex: true };
  if (bosId === null) return bytes;
  const bos = tokens[bosId] as string;
  const special = (typeId: number): unknown => ({ SpecialToken: { id: bos, type_id: typeId } });
  const sequence = (name: string, typeId: number): unknown => ({
    Sequence: { id: name, type_id: typeId },
  });
  const template = {
    type: "TemplateProcessing",
    single: [special(0), sequence("A", 0)],
    pair: [special(0), sequence("A", 0), special(1), sequence("B", 1)],
    special_tokens: { [bos]: { id: bos, ids: [bosId], tokens: [bos] } },
  };
  return { type: "Sequence", processors: [bytes, template] };
}
