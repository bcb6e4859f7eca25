import { isRecord } from "#lib/checkpoint/file-reader";
import { tokenType } from "#lib/checkpoint/index";
import {
  checkParts,
  type GgufToken,
  type Json,
  type KindOfTokenizer,
  type Merges,
  numbers,
  partsOf,
  type Refuse,
  text,
} from "./gguf-tokenizer-parts.js";

/** What stands for a blank in a token. */
const blank = "\u2581";

/**
 * A SentencePiece BPE tokenizer as llama.cpp has it.
 *
 * @param refuse throws with what llama.cpp does not know
 */
export function sentencePiece(
  definition: Json,
  { tokens, merges }: { readonly tokens: readonly GgufToken[]; readonly merges: Merges },
  refuse: Refuse,
): KindOfTokenizer {
  const normalizers = partsOf(definition, "normalizer");
  const preTokenizers = partsOf(definition, "pre_tokenizer");
  checkParts([...normalizers, ...preTokenizers], isKnown, refuse);
  const parts = [...normalizers, ...preTokenizers];
  if (!parts.some(({ type }) => type === "Replace" || type === "Metaspace")) {
    refuse(`its tokenizer does not write blanks as ${blank}`);
  }
  if (preTokenizers.some(cutsAtBlanks)) checkWords(tokens, refuse);
  checkMerges(tokens, merges, refuse);
  return {
    metadata: {
      model: text("llama"),
      pre: text("default"),
      scores: numbers("float32s", scoresOf(tokens, merges)),
      add_space_prefix: { type: "bool", value: addsSpacePrefix(normalizers, preTokenizers) },
    },
    warnings: preTokenizers.flatMap(prefixDifference),
  };
}

/** What llama.cpp does with every text: blanks become another character, and one may be put first. */
function isKnown({ type, pattern, content, prepend, replacement, behavior }: Json): boolean {
  const ofBlank = isRecord(pattern) && pattern["String"] === " ";
  switch (type) {
    case "Prepend":
      return prepend === blank;
    case "Replace":
      return ofBlank && content === blank;
    case "Metaspace":
      return replacement === undefined || replacement === blank;
    case "Split":
      // Of texts in which no blank is left it cuts none (Gemma).
      return ofBlank && behavior === "MergedWithPrevious";
    default:
      return false;
  }
}

const cutsAtBlanks = ({ type, split }: Json): boolean => type === "Metaspace" && split !== false;

/** Where words are cut from each other first, no token may go across them: llama.cpp would make it. */
function checkWords(tokens: readonly GgufToken[], refuse: Refuse): void {
  const across = tokens.find(
    ({ text: token, type }) => isNormal(type) && token.indexOf(blank, 1) > 0,
  );
  if (across === undefined) return;
  refuse(
    `its tokenizer cuts texts at blanks first, and llama.cpp would join ${shown(across.text)}`,
  );
}

const isNormal = (type: number): boolean => type === tokenType.normal;
const normalTexts = (tokens: readonly GgufToken[]): ReadonlySet<string> =>
  new Set(tokens.flatMap(({ text: token, type }) => (isNormal(type) ? [token] : [])));
const shown = (token: string): string => JSON.stringify(token.slice(0, 40));

/**
 * llama.cpp joins any two neighbours whose union is a token, and the tokenizers library those that are listed: the same
 * where every way to cut a token in two is in the list, as in what is made of a SentencePiece model.
 */
function checkMerges(tokens: readonly GgufToken[], merges: Merges, refuse: Refuse): void {
  const normal = normalTexts(tokens);
  const listed = new Set(merges.map((pair) => pair.join(" ")));
  for (const token of normal) {
    // Code points: a cut between two surrogates would give no token.
    let cut = 0;
    for (const character of token) {
      cut += character.length;
      const [left, right] = [token.slice(0, cut), token.slice(cut)];
      if (!normal.has(left) || !normal.has(right) || listed.has(`${left} ${right}`)) continue;
      refuse(
        `its tokenizer has the tokens ${shown(left)}, ${shown(right)} and ${shown(token)}, and no merge of the two: llama.cpp would join them`,
      );
    }
  }
}

/**
 * llama.cpp joins the neighbours whose union has the best score, as SentencePiece does. Scores follow from the
 * order of the merges, as they do in a SentencePiece model: 0, -1, -2 ... for what is joined, then single
 * characters. What users defined is found as a whole, and is not among them.
 */
function scoresOf(tokens: readonly GgufToken[], merges: Merges): number[] {
  const normal = normalTexts(tokens);
  const order = new Map<string, number>();
  for (const [left, right] of merges) {
    const joined = left + right;
    if (normal.has(joined) && !order.has(joined)) order.set(joined, order.size);
  }
  let next = order.size;
  return tokens.map(({ text: token, type }) => {
    if (type === tokenType.unused) return -10_000;
    if (type === tokenType.userDefined || type === tokenType.control) return -1_000;
    if (type === tokenType.byte) return 0;
    return -(order.get(token) ?? next++);
  });
}

/** Whether a blank stands before a text: by a normalizer, or by a pre-tokenizer of newer files. */
const addsSpacePrefix = (normalizers: readonly Json[], preTokenizers: readonly Json[]): boolean =>
  normalizers.some(({ type }) => type === "Prepend") || preTokenizers.some(prepends);

function prepends({ type, prepend_scheme: scheme, add_prefix_space: adds }: Json): boolean {
  const isNever = scheme === undefined ? adds === false : scheme === "never";
  return type === "Metaspace" && !isNever;
}

/** Where a pre-tokenizer puts no blank, and llama.cpp, as SentencePiece, does. */
function prefixDifference(preTokenizer: Json): string[] {
  if (!prepends(preTokenizer)) return [];
  const isFirst = preTokenizer["prepend_scheme"] === "first";
  const places = isFirst
    ? "texts that begin with one and parts after special tokens"
    : "texts that begin with one";
  return [`llama.cpp puts a blank before ${places} too, and this tokenizer does not`];
}
