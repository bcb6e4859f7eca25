import { isRecord, readJsonFile } from "#lib/checkpoint/file-reader";
import { preTokenizerName, tokenType } from "#lib/checkpoint/index";
import { contentOf, readTokenizerSettings } from "#lib/data/added-tokens";
import { type ChatTemplateSource, readTemplateSources } from "#lib/data/chat-template-files";
import { loadTokenizer, type Tokenizer } from "#lib/data/index";
import { sentencePiece } from "./gguf-sentencepiece.js";
import {
  checkParts,
  type GgufToken,
  type Json,
  type KindOfTokenizer,
  type Merges,
  type Metadata,
  numbers,
  partsOf,
  type Refuse,
  text,
  texts,
} from "./gguf-tokenizer-parts.js";
import type { ModelPlace } from "./model-place.js";
import { generationOptionsOf } from "./text-generator.js";

interface GgufVocabulary {
  readonly metadata: Metadata;
  /** What llama.cpp does otherwise, for a person. */
  readonly warnings: readonly string[];
}

/** A large vocabulary has 20 MB of tokens and merges. */
const maxTokenizerBytes = 256 << 20;

/**
 * A model's tokenizer, chat template and stop tokens as llama.cpp reads them, after its convert_hf_to_gguf.py.
 *
 * @param rows numRows: of the embedding; ids without a token get one that no text has. padTokenId: of config.json,
 *   where the tokenizer names none
 * @param refuse throws with what llama.cpp does not know
 * @throws what reading a tokenizer throws
 */
export async function ggufVocabulary(
  { tokenizerDirectory, modelDirectory }: ModelPlace,
  { numRows, padTokenId }: { readonly numRows: number; readonly padTokenId: unknown },
  refuse: Refuse,
): Promise<GgufVocabulary> {
  const tokenizer = await loadTokenizer(tokenizerDirectory, modelDirectory);
  if (tokenizer.vocabSize > numRows) {
    refuse(`its tokenizer has ${tokenizer.vocabSize} tokens for ${numRows} rows of the embedding`);
  }
  const definition = await readJsonFile(tokenizer.file, "tokenizer", maxTokenizerBytes);
  const model = isRecord(definition) ? definition["model"] : undefined;
  if (!isRecord(definition) || !isRecord(model) || model["type"] !== "BPE") {
    const type = isRecord(model) ? JSON.stringify(model["type"]) : "no type";
    return refuse(`its tokenizer is of ${type}; byte-level BPE and SentencePiece BPE are written`);
  }
  const { settings, declared } = await readTokenizerSettings(tokenizerDirectory);
  const listed: unknown[] = Array.isArray(definition["added_tokens"])
    ? definition["added_tokens"]
    : [];
  const added = new Set([
    ...listed.flatMap((token) => (isRecord(token) ? [Number(token["id"])] : [])),
    ...declared.map(({ id }) => id),
    ...tokenizer.specialTokens.keys(),
  ]);
  const beyond = [...added].find((id) => id >= numRows);
  if (beyond !== undefined) refuse(`its token ${beyond} has no row of the embedding's ${numRows}`);
  checkPieces(model, refuse);
  const isSentencePiece = model["byte_fallback"] === true;
  const merges = mergesOf(model, refuse);
  const tokens = tokensOf(tokenizer, { numRows, added, isSentencePiece });
  const kind = isSentencePiece
    ? sentencePiece(definition, { tokens, merges }, refuse)
    : byteLevel(definition, model, { merges }, refuse);
  const idOf = (token: string | undefined): number | null =>
    token === undefined ? null : tokenizer.tokenId(token);
  const ids = {
    bos: tokenizer.bosTokenId,
    unknown: idOf(contentOf(settings["unk_token"]) ?? contentOf(model["unk_token"])),
    mask: idOf(contentOf(settings["mask_token"])),
    // So it is called.
    seperator: idOf(contentOf(settings["sep_token"])),
    padding: tokenizer.padTokenId ?? (isToken(padTokenId, numRows) ? padTokenId : null),
  };
  const templates = await readTemplateSources(tokenizerDirectory);
  const { endTokenIds } = await generationOptionsOf(modelDirectory, tokenizer);
  const ends = stopTokens(
    // What has no row is never said.
    endTokenIds.filter((id) => id < numRows),
    tokenizer.eosTokenId,
  );
  return {
    metadata: {
      ...prefixed(kind.metadata),
      "tokenizer.ggml.tokens": texts(tokens.map(({ text }) => text)),
      "tokenizer.ggml.token_type": numbers(
        "int32s",
        tokens.map(({ type }) => type),
      ),
      ...idMetadata({ ...ids, ...ends.ids }),
      ...addedAround(tokenizer, ids.bos, refuse),
      ...templateMetadata(templates),
    },
    warnings: [
      ...kind.warnings,
      ...ends.warnings,
      ...defaultsOfLlamaCpp({ isSentencePiece, tokens, templates, ids: { ...ids, ...ends.ids } }),
    ],
  };
}

const isToken = (id: unknown, numRows: number): id is number =>
  typeof id === "number" && Number.isInteger(id) && id >= 0 && id < numRows;

const prefixed = (metadata: Metadata): Metadata =>
  Object.fromEntries(
    Object.entries(metadata).map(([key, value]) => [`tokenizer.ggml.${key}`, value]),
  );

const idMetadata = (ids: Readonly<Record<string, number | null | undefined>>): Metadata =>
  Object.fromEntries(
    Object.entries(ids).flatMap(([name, value]) =>
      typeof value === "number"
        ? [[`tokenizer.ggml.${name}_token_id`, { type: "uint32", value }] as const]
        : [],
    ),
  );

/** Templates beside the default one have names of letters, digits and underscores, as the converter writes them. */
function templateMetadata(templates: ReadonlyMap<string, ChatTemplateSource>): Metadata {
  const named = [...templates].filter(([name]) => name !== "default");
  const entries = named.map(([name, source]) => [name.replace(/[^a-zA-Z0-9]/g, "_"), source.text]);
  const byName = Object.fromEntries(entries) as Readonly<Record<string, string>>;
  const standard = templates.get("default");
  return {
    ...(named.length === 0 ? {} : { "tokenizer.chat_templates": texts(Object.keys(byName)) }),
    ...Object.fromEntries(
      Object.entries(byName).map(([name, value]) => [
        `tokenizer.chat_template.${name}`,
        text(value),
      ]),
    ),
    ...(standard === undefined ? {} : { "tokenizer.chat_template": text(standard.text) }),
  };
}

/** Ids that llama.cpp takes where a file names none; a file cannot say that there are none. */
const llamaCppDefaults = {
  sentencePiece: { bos: 1, eos: 2 },
  byteLevel: { bos: 11, eos: 11 },
} as const;

/** What follows where a tokenizer has no token to begin or end a text with. */
function defaultsOfLlamaCpp({
  isSentencePiece,
  tokens,
  templates,
  ids,
}: {
  readonly isSentencePiece: boolean;
  readonly tokens: readonly GgufToken[];
  readonly templates: ReadonlyMap<string, ChatTemplateSource>;
  readonly ids: Readonly<Record<string, number | null | undefined>>;
}): string[] {
  const defaults = llamaCppDefaults[isSentencePiece ? "sentencePiece" : "byteLevel"];
  const taken = (id: number): string => `token ${id}, ${JSON.stringify(tokens[id]?.text)}`;
  const namesBos = [...templates.values()].some((source) => source.text.includes("bos_token"));
  return [
    ...(typeof ids["eos"] === "number" || defaults.eos >= tokens.length
      ? []
      : [`no token ends a text, and llama.cpp takes ${taken(defaults.eos)}, for one that does`]),
    ...(typeof ids["bos"] === "number" || !namesBos || defaults.bos >= tokens.length
      ? []
      : [
          `the chat template puts bos_token, which is empty here, and ${taken(defaults.bos)}, in llama.cpp`,
        ]),
  ];
}

/** Tokens by id. */
function tokensOf(
  tokenizer: Tokenizer,
  {
    numRows,
    added,
    isSentencePiece,
  }: {
    readonly numRows: number;
    readonly added: ReadonlySet<number>;
    readonly isSentencePiece: boolean;
  },
): readonly GgufToken[] {
  return Array.from({ length: numRows }, (_, id): GgufToken => {
    const text = tokenizer.tokenOf(id);
    if (text === null) return { text: `[PAD${id}]`, type: tokenType.unused };
    if (tokenizer.specialTokens.has(id)) return { text, type: tokenType.control };
    if (added.has(id)) {
      if (looksSpecial(text)) return { text, type: tokenType.control };
      // llama.cpp looks for these in the text as it is given.
      return { text: text.replaceAll("\u2581", " "), type: tokenType.userDefined };
    }
    const isByte = isSentencePiece && /^<0x[0-9A-F]{2}>$/.test(text);
    return { text, type: isByte ? tokenType.byte : tokenType.normal };
  });
}

/** Some models mark tokens of control as if they were text (`does_token_look_special` of llama.cpp). */
const looksSpecial = (text: string): boolean =>
  ["<pad>", "<mask>", "<2mass>", "[@BOS@]"].includes(text) ||
  /^<\|.*\|>$/s.test(text) ||
  /^<\uff5c.*\uff5c>$/s.test(text) ||
  /^<unused.*>$/s.test(text);

/** Tokens of whole words, or of what goes on in one, llama.cpp does not know. */
function checkPieces(model: Json, refuse: Refuse): void {
  for (const key of ["continuing_subword_prefix", "end_of_word_suffix"]) {
    const value = model[key];
    if (value === undefined || value === null || value === "") continue;
    refuse(`its tokenizer marks tokens by their place in a word (${key})`);
  }
}

function mergesOf(model: Json, refuse: Refuse): Merges {
  const { merges } = model;
  if (!Array.isArray(merges)) return refuse("its tokenizer has no merges");
  return merges.map((merge: unknown) => {
    const pair: unknown[] =
      typeof merge === "string" ? merge.split(" ") : Array.isArray(merge) ? merge : [];
    const [left, right] = pair;
    if (pair.length !== 2 || typeof left !== "string" || typeof right !== "string") {
      return refuse(`its tokenizer has a merge of another form: ${JSON.stringify(merge)}`);
    }
    return [left, right] as const;
  });
}

const wholeWords = (areKeptHere: boolean): string =>
  areKeptHere
    ? "words that are tokens are kept whole here (ignore_merges), and joined from parts by llama.cpp"
    : "words that are tokens are joined from parts here, and kept whole by llama.cpp (ignore_merges)";

/** Of the pre-tokenizers that are written, those with which llama.cpp keeps a word that is a token as it is. */
const keepsWords = (name: string): boolean => name === "llama-bpe";

function byteLevel(
  definition: Json,
  model: Json,
  { merges }: { readonly merges: Merges },
  refuse: Refuse,
): KindOfTokenizer {
  // llama.cpp normalizes nothing; NFC is what most texts are in.
  checkParts(partsOf(definition, "normalizer"), ({ type }) => type === "NFC", refuse);
  const name =
    preTokenizerName(definition["pre_tokenizer"]) ??
    refuse("its pre-tokenizer is not one of those that are written");
  if (merges.some((pair) => pair.some((part) => part.includes(" ")))) {
    refuse("its tokenizer joins tokens with blanks in them");
  }
  const ignoresMerges = model["ignore_merges"] === true;
  return {
    metadata: {
      model: text("gpt2"),
      pre: text(name),
      merges: texts(merges.map((pair) => pair.join(" "))),
    },
    warnings: ignoresMerges === keepsWords(name) ? [] : [wholeWords(ignoresMerges)],
  };
}

/** What the post-processor puts around a text. */
function addedAround(
  { prefixTokenIds, suffixTokenIds, eosTokenId }: Tokenizer,
  bosTokenId: number | null,
  refuse: Refuse,
): Metadata {
  const isPlain = (ids: readonly number[], id: number | null): boolean =>
    ids.length === 0 || (ids.length === 1 && ids[0] === id);
  if (!isPlain(prefixTokenIds, bosTokenId) || !isPlain(suffixTokenIds, eosTokenId)) {
    refuse(
      "its tokenizer puts other tokens around a text than one at the beginning and one at the end",
    );
  }
  return {
    "tokenizer.ggml.add_bos_token": { type: "bool", value: prefixTokenIds.length > 0 },
    "tokenizer.ggml.add_eos_token": { type: "bool", value: suffixTokenIds.length > 0 },
  };
}

/** llama.cpp has a place for three tokens that end a text, beside those that it knows by their names. */
function stopTokens(
  endTokenIds: readonly number[],
  eosTokenId: number | null,
): { readonly ids: Readonly<Record<string, number>>; readonly warnings: readonly string[] } {
  const [first, ...others] =
    eosTokenId !== null && endTokenIds.includes(eosTokenId)
      ? [eosTokenId, ...endTokenIds.filter((id) => id !== eosTokenId)]
      : endTokenIds;
  const places = ["eos", "eot", "eom"];
  const kept = [...(first === undefined ? [] : [first]), ...others].slice(0, places.length);
  const left = endTokenIds.filter((id) => !kept.includes(id));
  return {
    ids: Object.fromEntries(kept.map((id, i) => [places[i] as string, id])),
    warnings:
      left.length === 0
        ? []
        : [`llama.cpp has no place for more than three stop tokens: ${left.join(", ")} left out`],
  };
}
