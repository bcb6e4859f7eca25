import { type AddedTokenForm, ownAddedTokens } from "./added-tokens.js";
import { isRecord } from "./files.js";

/**
 * Whether a text may be cut between a letter and a space that a letter follows without changing its
 * tokens. It may where a pre-tokenizer splits there and lets the space lead the next word (the
 * byte-level patterns of GPT-2, Llama 3 and Qwen) or drops it (BERT's), and nothing else looks at the
 * start of a text or across the cut.
 *
 * @param tokenizerJson content of `tokenizer.json`
 * @param added tokens that other files add to it
 */
export function tokensSurviveCuts(
  tokenizerJson: string,
  added: readonly AddedTokenForm[] = [],
): boolean {
  const definition: unknown = JSON.parse(tokenizerJson);
  if (!isRecord(definition) || !isRecord(definition.pre_tokenizer)) return false;
  const reachesOver = [...ownAddedTokens(definition), ...added].some(
    ({ content, lstrip, rstrip }) => lstrip || rstrip || content.includes(" "),
  );
  const pipeline = JSON.stringify([definition.normalizer, definition.pre_tokenizer]);
  return (
    !reachesOver &&
    /"type":"(ByteLevel|BertPreTokenizer)"/.test(pipeline) &&
    !/"(Metaspace|Prepend|Precompiled|Replace|Strip)"|"add_prefix_space":true/.test(pipeline)
  );
}

/** Cuts a text into pieces of at least `size` characters that give it again when joined. */
export function cutBetweenWords(text: string, size: number): string[] {
  const pieces: string[] = [];
  const wordEnd = /\p{L}(?= \p{L})/gu;
  let start = 0;
  while (text.length - start > 2 * size) {
    wordEnd.lastIndex = start + size;
    if (wordEnd.exec(text) === null) break;
    pieces.push(text.slice(start, wordEnd.lastIndex));
    start = wordEnd.lastIndex;
  }
  pieces.push(text.slice(start));
  return pieces;
}
