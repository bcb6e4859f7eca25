import { isRecord } from "#lib/checkpoint/file-reader";
import type { GgufMetadata } from "./metadata.js";
import { bosTemplate, type TokenizerParts, type Vocabulary } from "./vocabulary.js";

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

/**
 * llama.cpp's name for a pre-tokenizer of tokenizer.json; undefined for one that is not here. Of names that
 * stand for the same, the first.
 */
export function preTokenizerName(preTokenizer: unknown): string | undefined {
  const form = JSON.stringify(formOf(preTokenizer));
  const known = Object.entries(preTokenizers);
  return known.find(([, each]) => JSON.stringify(formOf(each)) === form)?.[0];
}

/** What of a pre-tokenizer decides how texts are cut, with its defaults, in one order. */
function formOf(preTokenizer: unknown): unknown {
  if (!isRecord(preTokenizer)) return null;
  const { type, pretokenizers, add_prefix_space, use_regex = true } = preTokenizer;
  if (type === "ByteLevel") return [type, add_prefix_space, use_regex];
  if (type === "Digits") return [type, preTokenizer["individual_digits"]];
  if (type === "Sequence" && Array.isArray(pretokenizers)) return [type, pretokenizers.map(formOf)];
  const { pattern, behavior, invert = false } = preTokenizer;
  return [type, isRecord(pattern) ? pattern["Regex"] : null, behavior, invert];
}

function byteLevel(): Readonly<Record<string, unknown>> {
  return { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
}

function splitThenBytes(regex: string): Readonly<Record<string, unknown>> {
  const split = { type: "Split", pattern: { Regex: regex }, behavior: "Isolated", invert: false };
  return { type: "Sequence", pretokenizers: [split, byteLevel()] };
}

/** The parts of tokenizer.json of a byte-level BPE tokenizer (GPT-2, Llama 3, SmolLM2). */
export function byteLevelParts(metadata: GgufMetadata, vocabulary: Vocabulary): TokenizerParts {
  const { vocab, fail } = vocabulary;
  const pre = metadata.optionalString("tokenizer.ggml.pre") ?? "none";
  const preTokenizer = Object.hasOwn(preTokenizers, pre)
    ? preTokenizers[pre]
    : fail(
        `its pre-tokenizer "${pre}" is not known; known are ${Object.keys(preTokenizers).join(", ")}`,
      );
  const isLlama3 = preTokenizer === llama3Split;
  const addsBos = metadata.optionalBoolean("tokenizer.ggml.add_bos_token") ?? isLlama3;
  const offsets = { ...byteLevel(), add_prefix_space: true, trim_offsets: false, use_regex: true };
  const template = addsBos ? bosTemplate(vocabulary) : null;
  return {
    normalizer: null,
    pre_tokenizer: preTokenizer,
    post_processor:
      template === null ? offsets : { type: "Sequence", processors: [offsets, template] },
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
      merges: readMerges(metadata, vocabulary),
    },
  };
}

/** Merges as pairs; llama.cpp and `tokenizers` both split at the one space of a merge. */
function readMerges(
  metadata: GgufMetadata,
  { vocab, fail }: Vocabulary,
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
