import { AddedToken, type Encoding, Tokenizer as NativeTokenizer } from "tokenizers";
import { LockstepError } from "#lib/core/errors/index";
import { parseJson } from "#lib/core/json-text";
import {
  namedSpecialTokens,
  ownAddedTokens,
  readTokenizerSettings,
  type TokenizerSettings,
  tokensToAdd,
} from "./added-tokens.js";
import {
  type ChatMessage,
  type ChatTemplate,
  readChatTemplate,
  type TemplateOptions,
} from "./chat-template.js";
import type { MarkedText, TextSpan } from "./generation-marks.js";
import { refuseHalfCharacters } from "./half-characters.js";
import { checkPostProcessor } from "./post-processor.js";
import { readSpecialTokens } from "./special-tokens.js";
import { cutBetweenWords, tokensSurviveCuts } from "./text-cuts.js";
import { readTokenizerFile } from "./tokenizer-file.js";

/**
 * A model's tokenizer. Encoding runs in the native library's threads, off the event loop; a batch
 * uses every core unless `RAYON_NUM_THREADS` is set before the first call. Results do not depend on it.
 */
export interface Tokenizer {
  /** Its tokenizer.json. */
  readonly file: string;
  /** Tokens in the vocabulary, added ones included; the model's own may be padded to more. */
  readonly vocabSize: number;
  readonly bosTokenId: number | null;
  readonly padTokenId: number | null;
  readonly eosTokenId: number | null;
  /** Stands after a document in a packed row: `<|endoftext|>` where the vocabulary has it, as in pre-training, else the end token. */
  readonly documentSeparatorTokenId: number | null;
  /** Tokens that end a generation. */
  readonly endTokenIds: readonly number[];
  readonly hasChatTemplate: boolean;
  readonly chatTemplate: ChatTemplate | undefined;
  /** @throws E_CHAT_TEMPLATE_MISSING */
  requireChatTemplate(): ChatTemplate;
  /** Added tokens that are marked special and tokens that its files name as such, by id. */
  readonly specialTokens: ReadonlyMap<number, string>;
  /** What the post-processor puts before a text ([CLS], <s>) and behind it ([SEP]). */
  readonly prefixTokenIds: readonly number[];
  readonly suffixTokenIds: readonly number[];
  encode(text: string, options?: EncodeOptions): Promise<Int32Array>;
  /** One array of ids a text, in order. */
  encodeMany(texts: readonly string[], options?: EncodeOptions): Promise<Int32Array[]>;
  /**
   * Encodes texts with spans, without added tokens. A span of tokens begins with the one that holds the
   * span's first character and ends with the one that holds its last, as transformers' masks do.
   */
  encodeMarked(texts: readonly MarkedText[]): Promise<MarkedTokens[]>;
  /**
   * One text or two with the post-processor's tokens ([CLS] a [SEP] b [SEP]), for encoders.
   *
   * @param maxLength tokens in all; the longer text is cut first, as `truncation=True` of transformers cuts
   */
  encodePair(text: string, pair: string | null, maxLength?: number): Promise<PairTokens>;
  decode(ids: ArrayLike<number>, options?: { skipSpecialTokens?: boolean }): Promise<string>;
  tokenId(token: string): number | null;
  /** The token of an id, as the vocabulary writes it. */
  tokenOf(id: number): string | null;
  /** Renders messages to text; encode the result without special tokens, the template writes them. */
  applyChatTemplate(
    messages: readonly ChatMessage[],
    options?: { addGenerationPrompt?: boolean },
  ): string;
}

interface EncodeOptions {
  /** Whether the post-processor adds its tokens ([CLS], BOS). @default false */
  readonly addSpecialTokens?: boolean;
  /** Called as texts get done, with characters (UTF-16 units) since the start. */
  readonly onProgress?: (numCharacters: number) => void;
}

export interface MarkedTokens {
  readonly ids: Int32Array;
  /** Token positions, half-open; a span without tokens is absent. */
  readonly spans: readonly TextSpan[];
}

export interface PairTokens {
  readonly ids: Int32Array;
  /** 1 for the tokens of the second text. */
  readonly typeIds: Int32Array;
  /** Tokens that were cut off. */
  readonly truncatedTokens: number;
}

/** Characters that one native call gets: enough to keep all cores busy; an encoding takes about 100 times the bytes of its text. */
const batchCharacters = 2 ** 20;
/**
 * Longer texts are cut where that cannot change their tokens, to share cores and because the
 * library is slower on long ones: State of the Union speeches of 46 kB went through whole at 2.6 MB/s
 * a thread, cut at 4.0 MB/s.
 */
const pieceCharacters = 2048;

/** Ends documents in the texts of pre-training. */
const endOfText = "<|endoftext|>";
/** What a text is called that came without its place. */
const givenText = "a given text";

/**
 * Loads `tokenizer.json` of a model directory with the tokens that the files beside it add, its special
 * tokens and its chat template.
 *
 * @param modelDirectory where config.json and generation_config.json are, if not beside it
 * @param templateOptions the date that the chat template writes
 * @throws E_FILE_NOT_FOUND, E_TOKENIZER_MISSING, E_TOKENIZER_INVALID, E_CHAT_TEMPLATE_FAILED
 */
export async function loadTokenizer(
  directory: string,
  modelDirectory: string = directory,
  templateOptions: TemplateOptions = {},
): Promise<Tokenizer> {
  const { file, text } = await readTokenizerFile(directory);
  const definition = parseDefinition(file, text);
  checkPostProcessor(file, definition);
  const native = openNative(file, text);
  const beside = await readTokenizerSettings(directory);
  const own = ownAddedTokens(definition);
  const added = tokensToAdd(beside, own);
  // A token that only has a role, padding for one, is no sign of how the model was trained.
  const hasEndOfText =
    native.tokenToId(endOfText) !== null ||
    beside.declared.some(({ token }) => token.content === endOfText);
  native.addAddedTokens(
    added.map(
      ({ content, special, lstrip, rstrip, singleWord, normalized }) =>
        new AddedToken(content, special, {
          ...{ leftStrip: lstrip, rightStrip: rstrip, singleWord, normalized },
        }),
    ),
  );
  checkDeclaredIds(native, beside);
  const mayCut = tokensSurviveCuts(text, added);
  const specialTokens = await readSpecialTokens(beside.settings, modelDirectory);
  const chatTemplate = await readChatTemplate(directory, specialTokens, templateOptions);
  /** A model without the token for what is unknown fails at the first such text. */
  const encoding = async <T>(call: () => Promise<T>): Promise<T> => {
    try {
      return await call();
    } catch (cause) {
      const problem = `it encodes no such text: ${cause instanceof Error ? cause.message : String(cause)}`;
      throw new LockstepError("E_TOKENIZER_INVALID", { file, problem }, { cause });
    }
  };
  const { prefixTokenIds, suffixTokenIds } = await encoding(() => tokensAround(native));

  const idOf = (token: string | undefined): number | null =>
    token === undefined ? null : (native.tokenToId(token) ?? null);
  const bosTokenId = idOf(specialTokens.bosToken) ?? specialTokens.configBosTokenId ?? null;
  const eosTokenId = idOf(specialTokens.eosToken) ?? specialTokens.configEosTokenId ?? null;
  const endTokenIds = [
    ...new Set([
      ...specialTokens.generationEosTokenIds,
      ...(eosTokenId === null ? [] : [eosTokenId]),
    ]),
  ];

  async function encodeMany(
    texts: readonly string[],
    { addSpecialTokens = false, onProgress }: EncodeOptions = {},
  ): Promise<Int32Array[]> {
    for (const each of texts) refuseHalfCharacters(each, givenText);
    const pieces = texts.map((whole) =>
      mayCut && !addSpecialTokens ? cutBetweenWords(whole, pieceCharacters) : [whole],
    );
    const queue = pieces.flat();
    const encoded: Int32Array[] = [];
    let numCharacters = 0;
    for (let start = 0; start < queue.length; ) {
      const batch: string[] = [];
      let batchSize = 0;
      for (; start < queue.length && batchSize < batchCharacters; start++) {
        const piece = queue[start] ?? "";
        batch.push(piece);
        batchSize += piece.length;
      }
      const encodings = await encoding(() => native.encodeBatch(batch, { addSpecialTokens }));
      for (const encoding of encodings) encoded.push(Int32Array.from(encoding.getIds()));
      numCharacters += batchSize;
      onProgress?.(numCharacters);
    }
    let position = 0;
    return pieces.map(({ length }) => concatenate(encoded.slice(position, (position += length))));
  }

  const requireChatTemplate = (): ChatTemplate => {
    if (chatTemplate !== undefined) return chatTemplate;
    throw new LockstepError("E_CHAT_TEMPLATE_MISSING", { directory });
  };

  return Object.freeze({
    file,
    vocabSize: native.getVocabSize(true),
    bosTokenId,
    padTokenId: idOf(specialTokens.padToken),
    eosTokenId,
    documentSeparatorTokenId: (hasEndOfText ? idOf(endOfText) : null) ?? eosTokenId,
    endTokenIds: Object.freeze(endTokenIds),
    hasChatTemplate: chatTemplate !== undefined,
    chatTemplate,
    requireChatTemplate,
    specialTokens: new Map(
      [
        ...[...own, ...added].flatMap(({ special, content }) => (special ? [content] : [])),
        ...namedSpecialTokens(beside),
      ].flatMap((content): [number, string][] => {
        const id = idOf(content);
        return id === null ? [] : [[id, content]];
      }),
    ),
    prefixTokenIds,
    suffixTokenIds,
    encodeMany,
    async encodeMarked(texts: readonly MarkedText[]) {
      for (const { text: each } of texts) refuseHalfCharacters(each, givenText);
      const encodings = await encoding(() =>
        native.encodeBatch(
          texts.map((marked) => marked.text),
          { addSpecialTokens: false },
        ),
      );
      return encodings.map((encoding, i) => markedTokens(encoding, texts[i]));
    },
    async encodePair(first: string, pair: string | null, maxLength?: number) {
      refuseHalfCharacters([first, pair], givenText);
      const plain = { addSpecialTokens: false };
      const a = await encoding(() => native.encode(first, null, plain));
      // As a second text it gets the second type, which not every post-processor sets.
      const b = pair === null ? null : await encoding(() => native.encode("", pair, plain));
      const added = await encoding(() =>
        native.encode("", pair === null ? null : "", { addSpecialTokens: true }),
      );
      const lengths = [a.getLength(), b?.getLength() ?? 0] as const;
      const room = Math.max(0, (maxLength ?? Number.POSITIVE_INFINITY) - added.getLength());
      const [keptA, keptB] = longestFirst(...lengths, room);
      // The right is the end that goes.
      if (keptA < lengths[0]) a.truncate(keptA, 0, "right");
      if (b !== null && keptB < lengths[1]) b.truncate(keptB, 0, "right");
      const processed = native.postProcess(a, b, true);
      return {
        ids: Int32Array.from(processed.getIds()),
        typeIds: Int32Array.from(processed.getTypeIds()),
        truncatedTokens: lengths[0] - keptA + lengths[1] - keptB,
      };
    },
    async encode(whole: string, options: EncodeOptions = {}) {
      const [ids] = await encodeMany([whole], options);
      return ids ?? new Int32Array(0);
    },
    async decode(ids: ArrayLike<number>, { skipSpecialTokens = true } = {}) {
      return native.decode(Array.from(ids), skipSpecialTokens);
    },
    tokenId: (token: string) => idOf(token),
    tokenOf: (id: number) => native.idToToken(id),
    applyChatTemplate(messages: readonly ChatMessage[], { addGenerationPrompt = false } = {}) {
      return requireChatTemplate().render(messages, { addGenerationPrompt });
    },
  });
}

function parseDefinition(file: string, text: string): unknown {
  try {
    return parseJson(text);
  } catch (cause) {
    const problem = `it is not JSON (${String(cause)})`;
    throw new LockstepError("E_TOKENIZER_INVALID", { file, problem }, { cause });
  }
}

function openNative(file: string, text: string): NativeTokenizer {
  try {
    const native = NativeTokenizer.fromString(text);
    // Files saved after inference often keep truncation to 128 tokens: a document has to stay whole.
    native.disableTruncation();
    native.disablePadding();
    return native;
  } catch (cause) {
    const problem = cause instanceof Error ? cause.message : String(cause);
    throw new LockstepError("E_TOKENIZER_INVALID", { file, problem }, { cause });
  }
}

/** Lengths of two texts cut to `room` tokens together; the `LongestFirst` of the tokenizers library. */
function longestFirst(a: number, b: number, room: number): [number, number] {
  if (a + b <= room) return [a, b];
  const shorter = Math.min(a, b);
  let [low, high] = [shorter, shorter > room ? shorter : Math.max(shorter, room - shorter)];
  if (low + high > room) {
    low = Math.floor(room / 2);
    high = low + (room % 2);
  }
  return a > b ? [high, low] : [low, high];
}

/**
 * An added token gets the next free id, whatever id its file names: with another one a model would learn
 * it in the wrong place, without a word.
 *
 * @throws E_TOKENIZER_INVALID
 */
function checkDeclaredIds(native: NativeTokenizer, { declared, legacy }: TokenizerSettings): void {
  for (const { file, id, token } of [...declared, ...legacy]) {
    const given = native.tokenToId(token.content);
    // The library takes no token without a character.
    if (given === id || token.content === "") continue;
    const content = JSON.stringify(token.content);
    const problem =
      given === null
        ? `it names the token ${content}, which the added_tokens_decoder beside it leaves out`
        : `it gives the token ${content} the id ${id}, and in the vocabulary of tokenizer.json ` +
          `${given} is its id or the next free one`;
    throw new LockstepError("E_TOKENIZER_INVALID", { file, problem });
  }
}

/** What the post-processor writes around a text. */
async function tokensAround(
  native: NativeTokenizer,
): Promise<{ prefixTokenIds: readonly number[]; suffixTokenIds: readonly number[] }> {
  const encoding = await native.encode("a", null, { addSpecialTokens: true });
  const ids = encoding.getIds();
  const isAdded = encoding.getSpecialTokensMask();
  const first = isAdded.indexOf(0);
  const prefix = ids.slice(0, first < 0 ? ids.length : first);
  const suffix = first < 0 ? [] : ids.slice(isAdded.lastIndexOf(0) + 1);
  return { prefixTokenIds: Object.freeze(prefix), suffixTokenIds: Object.freeze(suffix) };
}

/** The library counts characters as Unicode does, JavaScript in UTF-16 units. */
function markedTokens(encoding: Encoding, marked: MarkedText | undefined): MarkedTokens {
  const ids = Int32Array.from(encoding.getIds());
  const { text, spans: textSpans } = marked ?? { text: "", spans: [] };
  const spans: TextSpan[] = [];
  let units = 0;
  let characters = 0;
  const charactersBefore = (end: number): number => {
    for (; units < end; characters++) units += (text.codePointAt(units) ?? 0) > 0xffff ? 2 : 1;
    return characters;
  };
  for (const span of textSpans) {
    const start = charactersBefore(span.start);
    const end = charactersBefore(span.end);
    // Blanks that the tokenizer drops belong to no token.
    let first: number | null = null;
    for (let i = start; i < end && first === null; i++) first = encoding.charToToken(i);
    let last: number | null = null;
    for (let i = end - 1; i >= start && last === null; i--) last = encoding.charToToken(i);
    if (first === null || last === null) continue;
    // A character of several tokens is found by its first one.
    const holdsSame = (token: number): boolean => {
      const a = encoding.tokenToChars(token);
      const b = encoding.tokenToChars(token + 1);
      return !!a && !!b && b[0] < a[1] && b[1] > b[0];
    };
    while (last + 1 < ids.length && holdsSame(last)) last++;
    spans.push({ ...span, start: first, end: last + 1 });
  }
  return { ids, spans };
}

function concatenate(parts: readonly Int32Array[]): Int32Array {
  const [only] = parts;
  if (parts.length === 1 && only !== undefined) return only;
  const whole = new Int32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}
