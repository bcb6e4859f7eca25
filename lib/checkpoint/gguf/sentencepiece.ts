import type { GgufMetadata } from "./metadata.js";
import { bosTemplate, type TokenizerParts, tokenType, type Vocabulary } from "./vocabulary.js";

/** Characters of one token: finding its merges takes the square of this. Real ones have up to 64. */
const maxTokenCharacters = 1_024;

/**
 * The parts of tokenizer.json of a SentencePiece BPE tokenizer with byte fallback (Llama 2, Mistral),
 * as transformers' LlamaConverter writes them: spaces become U+2581, and one is put in front.
 */
export function sentencePieceParts(metadata: GgufMetadata, vocabulary: Vocabulary): TokenizerParts {
  const { vocab, tokens, unknownId, fail } = vocabulary;
  const scores =
    metadata.optionalNumbers("tokenizer.ggml.scores") ?? fail("it has no token scores");
  if (scores.length !== tokens.length) {
    fail(`it has ${tokens.length} tokens, but ${scores.length} scores`);
  }
  const addsPrefix = metadata.optionalBoolean("tokenizer.ggml.add_space_prefix") ?? true;
  const addsBos = metadata.optionalBoolean("tokenizer.ggml.add_bos_token") ?? true;
  const replace = { type: "Replace", pattern: { String: " " }, content: "\u2581" };
  const strip = { type: "Strip", content: " ", start: 1, stop: 0 };
  return {
    normalizer: addsPrefix
      ? { type: "Sequence", normalizers: [{ type: "Prepend", prepend: "\u2581" }, replace] }
      : replace,
    pre_tokenizer: null,
    post_processor: addsBos ? bosTemplate(vocabulary) : null,
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: "\u2581" }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        ...(addsPrefix ? [strip] : []),
      ],
    },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: unknownId === null ? null : tokens[unknownId],
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: true,
      ignore_merges: false,
      vocab: Object.fromEntries(vocab),
      merges: mergesByScore(vocabulary, scores),
    },
  };
}

/**
 * SentencePiece joins the neighbours whose union has the best score. As ranked merges: every way to
 * cut a token into two tokens, best score first; within a score the longer left part first, after
 * transformers' `generate_merges`.
 */
function mergesByScore(
  { tokens, types, vocab, fail }: Vocabulary,
  scores: readonly number[],
): readonly (readonly [string, string])[] {
  const isNormal = (id: number): boolean => (types[id] ?? tokenType.normal) === tokenType.normal;
  const merges: { left: string; right: string; score: number; leftLength: number }[] = [];
  for (const [id, token] of tokens.entries()) {
    if (token.length > maxTokenCharacters) {
      fail(
        `its token ${id} has ${token.length} characters; at most ${maxTokenCharacters} are read`,
      );
    }
    if (!isNormal(id)) continue;
    // Code points, as in Python: a cut between two surrogates would give no token.
    const characters = Array.from(token);
    for (let cut = characters.length - 1; cut > 0; cut--) {
      const [left, right] = [characters.slice(0, cut).join(""), characters.slice(cut).join("")];
      const [leftId, rightId] = [vocab.get(left), vocab.get(right)];
      if (leftId === undefined || rightId === undefined) continue;
      if (!isNormal(leftId) || !isNormal(rightId)) continue;
      merges.push({ left, right, score: scores[id] as number, leftLength: cut });
    }
  }
  merges.sort((a, b) => b.score - a.score || b.leftLength - a.leftLength);
  return merges.map(({ left, right }) => [left, right] as const);
}
