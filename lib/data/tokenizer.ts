import { join } from "node:path";
import { Tokenizer as NativeTokenizer } from "@anush008/tokenizers";
import { LockstepError } from "#lib/core/errors/index";
import { type ChatMessage, readChatTemplate } from "./chat-template.js";
import { maxTokenizerFileBytes, readTextFile } from "./files.js";
import { readSpecialTokens } from "./special-tokens.js";
import { cutBetweenWords, tokensSurviveCuts } from "./text-cuts.js";

/**
 * A model's tokenizer. Encoding runs in the native library's threads, off the event loop; a batch
 * uses every core unless `RAYON_NUM_THREADS` is set before the first call. Results do not depend on it.
 */
export interface Tokenizer {
  /** Tokens in the vocabulary, added ones included; the model's own may be padded to more. */
  readonly vocabSize: number;
  readonly bosTokenId: number | null;
  readonly eosTokenId: number | null;
  /** Stands after a document in a packed row: `<|endoftext|>` where the vocabulary has it, as in pre-training, else the end token. */
  readonly documentSeparatorTokenId: number | null;
  /** Tokens that end a generation. */
  readonly endTokenIds: readonly number[];
  readonly hasChatTemplate: boolean;
  encode(text: string, options?: EncodeOptions): Promise<Int32Array>;
  /** One array of ids a text, in order. */
  encodeMany(texts: readonly string[], options?: EncodeOptions): Promise<Int32Array[]>;
  decode(ids: ArrayLike<number>, options?: { skipSpecialTokens?: boolean }): Promise<string>;
  tokenId(token: string): number | null;
  /** Renders messages to text; encode the result without special tokens, the template writes them. */
  applyChatTemplate(
    messages: readonly ChatMessage[],
    options?: { addGenerationPrompt?: boolean },
  ): string;
}

export interface EncodeOptions {
  /** Whether the post-processor adds its tokens ([CLS], BOS). @default false */
  readonly addSpecialTokens?: boolean;
  /** Called as texts get done, with characters (UTF-16 units) since the start. */
  readonly onProgress?: (numCharacters: number) => void;
}

/** Characters that one native call gets: enough to keep all cores busy; an encoding takes about 100 times the bytes of its text. */
const batchCharacters = 2 ** 20;
/**
 * Longer texts are cut where that cannot change their tokens, to share cores and because the
 * library is slower on long ones: State of the Union speeches of 46 kB went through whole at 2.6 MB/s
 * a thread, cut at 4.0 MB/s.
 */
const pieceCharacters = 2048;

/**
 * Loads `tokenizer.json` of a model directory with its special tokens and chat template.
 *
 * @throws E_FILE_NOT_FOUND, E_TOKENIZER_INVALID, E_CHAT_TEMPLATE_FAILED
 */
export async function loadTokenizer(directory: string): Promise<Tokenizer> {
  const file = join(directory, "tokenizer.json");
  const text = await readTextFile(file, {
    what: "tokenizer file",
    limitBytes: maxTokenizerFileBytes,
  });
  const native = openNative(file, text);
  const mayCut = tokensSurviveCuts(text);
  const specialTokens = await readSpecialTokens(directory);
  const chatTemplate = await readChatTemplate(directory, specialTokens);

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
      const encodings = await native.encodeBatch(batch, { addSpecialTokens });
      for (const encoding of encodings) encoded.push(Int32Array.from(encoding.getIds()));
      numCharacters += batchSize;
      onProgress?.(numCharacters);
    }
    let position = 0;
    return pieces.map(({ length }) => concatenate(encoded.slice(position, (position += length))));
  }

  return Object.freeze({
    vocabSize: native.getVocabSize(true),
    bosTokenId,
    eosTokenId,
    documentSeparatorTokenId: idOf("<|endoftext|>") ?? eosTokenId,
    endTokenIds: Object.freeze(endTokenIds),
    hasChatTemplate: chatTemplate !== undefined,
    encodeMany,
    async encode(whole: string, options: EncodeOptions = {}) {
      const [ids] = await encodeMany([whole], options);
      return ids ?? new Int32Array(0);
    },
    async decode(ids: ArrayLike<number>, { skipSpecialTokens = true } = {}) {
      return native.decode(Array.from(ids), skipSpecialTokens);
    },
    tokenId: (token: string) => idOf(token),
    applyChatTemplate(messages: readonly ChatMessage[], { addGenerationPrompt = false } = {}) {
      if (chatTemplate === undefined) {
        throw new LockstepError("E_CHAT_TEMPLATE_MISSING", { directory });
      }
      return chatTemplate.render(messages, { addGenerationPrompt });
    },
  });
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
