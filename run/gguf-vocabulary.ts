import { isRecord, readJsonFile } from "#lib/checkpoint/file-reader";
import { type GgufMetadataValue, preTokenizerName, tokenType } from "#lib/checkpoint/index";
import { contentOf, readTokenizerSettings } from "#lib/data/added-tokens";
import { readTemplateSources } from "#lib/data/chat-template-files";
import { loadTokenizer, type Tokenizer } from "#lib/data/index";
import { generationOptionsOf } from "./text-generator.js";
import type { ModelPlace } from "./model-place.js";

type Metadata = Readonly<Record<string, GgufMetadataValue>>;

interface GgufVocabulary {
  readonly metadata: Metadata;
  /** What llama.cpp does otherwise, for a person. */
  readonly warnings: readonly string[];
}

/** A large vocabulary has 20 MB of tokens and merges. */
const maxTokenizerBytes = 256 << 20;

const texts = (value: readonly string[]): GgufMetadataValue => ({ type: "strings", value });
const numbers = (type: "int32s" | "float32s", value: readonly number[]): GgufMetadataValue => ({
  ...{ type, value },
});

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
  refuse: (problem: string) => never,
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
  const isSentencePiece = model["byte_fallback"] === true;
  const merges = mergesOf(model, refuse);
  const tokens = tokensOf(tokenizer, { numRows, added, isSentencePiece });
  const kind = isSentencePiece
    ? sentencePiece(definition, { tokens, merges }, refuse)
    : byteLevel(definition, merges, refuse);
  const unknown = contentOf(settings["unk_token"]) ?? contentOf(model["unk_token"]);
  const ids = {
    bos: tokenizer.bosTokenId,
    unknown: unknown === undefined ? null : tokenizer.tokenId(unknown),
    padding: tokenizer.padTokenId ?? (isToken(padTokenId, numRows) ? padTokenId : null),
  };
  const template = (await readTemplateSources(tokenizerDirectory)).get("default");
  const { endTokenIds } = await generationOptionsOf(modelDirectory, tokenizer);
  const ends = stopTokens(endTokenIds, tokenizer.eosTokenId);
  return {
    metadata: {
      ...prefixed(kind),
      "tokenizer.ggml.tokens": texts(tokens.map(({ text }) => text)),
      "tokenizer.ggml.token_type": numbers(
        "int32s",
        tokens.map(({ type }) => type),
      ),
      ...idMetadata({ ...ids, ...ends.ids }),
      ...addedAround(tokenizer, ids.bos, refuse),
      ...(template === undefined
        ? {}
        : { "tokenizer.chat_template": { type: "string", value: template.text } }),
    },
    warnings: ends.warnings,
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

interface GgufToken {
  readonly text: string;
  readonly type: number;
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

/** Pairs of tokens in the order in which they are joined. */
function mergesOf(
  model: Readonly<Record<string, unknown>>,
  refuse: (problem: string) => never,
): readonly (readonly [string, string])[] {
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

function byteLevel(
  definition: Readonly<Record<string, unknown>>,
  merges: readonly (readonly [string, string])[],
  refuse: (problem: string) => never,
): Metadata {
  // llama.cpp normalizes nothing; NFC is what most texts are in.
  checkParts(partsOf(definition, "normalizer"), ["NFC"], refuse);
  const name = preTokenizerName(definition["pre_tokenizer"]);
  if (name === undefined) refuse("its pre-tokenizer is not one of those that are written");
  if (merges.some((pair) => pair.some((part) => part.includes(" ")))) {
    refuse("its tokenizer joins tokens with blanks in them");
  }
  return {
    model: { type: "string", value: "gpt2" },
    pre: { type: "string", value: name as string },
    merges: texts(merges.map((pair) => pair.join(" "))),
  };
}

/**
 * llama.cpp joins the neighbours whose union has the best score, as SentencePiece does. Scores follow from the
 * order of the merges, as they do in a SentencePiece model: 0, -1, -2 ... for what is joined, then single
 * characters.
 */
function sentencePiece(
  definition: Readonly<Record<string, unknown>>,
  {
    tokens,
    merges,
  }: {
    readonly tokens: readonly GgufToken[];
    readonly merges: readonly (readonly [string, string])[];
  },
  refuse: (problem: string) => never,
): Metadata {
  const normalizers = partsOf(definition, "normalizer");
  const preTokenizers = partsOf(definition, "pre_tokenizer");
  checkParts(normalizers, ["Prepend", "Replace"], refuse);
  checkParts(preTokenizers, ["Metaspace", "Split"], refuse);
  const order = new Map<string, number>();
  for (const [left, right] of merges) {
    const joined = left + right;
    if (!order.has(joined)) order.set(joined, order.size);
  }
  let next = order.size;
  const scores = tokens.map(({ text, type }) => {
    if (type === tokenType.unused) return -10_000;
    if (type === tokenType.userDefined || type === tokenType.control) return -1_000;
    if (type === tokenType.byte) return 0;
    return -(order.get(text) ?? next++);
  });
  return {
    model: { type: "string", value: "llama" },
    pre: { type: "string", value: "default" },
    scores: numbers("float32s", scores),
    add_space_prefix: { type: "bool", value: addsSpacePrefix(normalizers, preTokenizers) },
  };
}

type Part = Readonly<Record<string, unknown>>;

/** The parts of a tokenizer's normalizer or pre-tokenizer, one after the other. */
function partsOf(definition: Part, name: "normalizer" | "pre_tokenizer"): readonly Part[] {
  const value = definition[name];
  if (!isRecord(value)) return [];
  const list = value[name === "normalizer" ? "normalizers" : "pretokenizers"];
  return value["type"] === "Sequence" && Array.isArray(list) ? list.filter(isRecord) : [value];
}

function checkParts(
  parts: readonly Part[],
  known: readonly string[],
  refuse: (problem: string) => never,
): void {
  const other = parts.find(({ type }) => !known.includes(String(type)));
  if (other === undefined) return;
  refuse(`its tokenizer changes or cuts texts by ${JSON.stringify(other["type"])} first`);
}

/** Whether a space stands before a text: by a normalizer, or by a pre-tokenizer of newer files. */
const addsSpacePrefix = (normalizers: readonly Part[], preTokenizers: readonly Part[]): boolean =>
  normalizers.some(({ type }) => type === "Prepend") ||
  preTokenizers.some(({ type, prepend_scheme: scheme, add_prefix_space: adds }) => {
    const isNever = scheme === undefined ? adds === false : scheme === "never";
    return type === "Metaspace" && !isNever;
  });

/** What the post-processor puts around a text. */
function addedAround(
  { prefixTokenIds, suffixTokenIds, eosTokenId }: Tokenizer,
  bosTokenId: number | null,
  refuse: (problem: string) => never,
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
