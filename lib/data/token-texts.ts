import type { Tokenizer } from "./tokenizer.js";

/** What a decoder writes for bytes that are no character yet. */
const replacement = "\ufffd";
/** More tokens than a character has bytes. */
const maxTokensOfCharacter = 8;
/** Tokens before a token that its text may depend on: a space that a decoder leaves out at a start. */
const contextTokens = 4;

/** Tokens that make up a text together: mostly one, or those of a character's bytes. */
export interface TokenText {
  /** Position of the first one. */
  readonly start: number;
  readonly count: number;
  readonly text: string;
}

/**
 * The text of each token of a row, special ones included. Their texts joined are the text that the tokenizer
 * decodes the row to, but for decoders that change what is before a token (of WordPiece: `do` and `n't`).
 */
export async function tokenTexts(
  tokenizer: Pick<Tokenizer, "decode">,
  ids: ArrayLike<number>,
): Promise<TokenText[]> {
  const all = Array.from(ids);
  const decode = (tokens: readonly number[]): Promise<string> =>
    tokenizer.decode(tokens, { skipSpecialTokens: false });
  const alone = new Map<number, string>();
  for (const id of all) if (!alone.has(id)) alone.set(id, await decode([id]));
  const texts = all.map((id) => alone.get(id) ?? "");
  if (texts.join("") === (await decode(all))) {
    return texts.map((text, start) => ({ start, count: 1, text }));
  }
  const found: TokenText[] = [];
  for (let start = 0; start < all.length; ) {
    const context = all.slice(Math.max(0, start - contextTokens), start);
    const before = await decode(context);
    let count = 0;
    let text = "";
    do {
      count++;
      const together = await decode([...context, ...all.slice(start, start + count)]);
      text = together.startsWith(before)
        ? together.slice(before.length)
        : await decode(all.slice(start, start + count));
    } while (
      text.endsWith(replacement) &&
      count < maxTokensOfCharacter &&
      start + count < all.length
    );
    found.push({ start, count, text });
    start += count;
  }
  return found;
}
