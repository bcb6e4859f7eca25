import { withCommas } from "#lib/core/format";

/** Characters that nobody sees or that a terminal obeys, line ends apart; joiners of emoji stay. */
const invisible =
  /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

const named: Readonly<Record<string, string>> = { "\t": "\\t", "\r": "\\r" };

/**
 * Text of data as a person may look at it: what a terminal would obey, or not show, is written as an escape
 * of JSON, and so are halves of characters. Line ends stay.
 */
export function visible(text: string): string {
  return text.replace(
    invisible,
    (character) =>
      named[character] ?? `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** In double quotes on one line, as JSON writes it. */
export const quoted = (text: string): string => visible(JSON.stringify(text));

/** A text in parts: whole, or its two ends around a note that says how much is between them. */
export function shortened(
  text: string,
  maxCharacters: number,
): readonly { readonly text: string; readonly isNote: boolean }[] {
  const characters = text.length <= maxCharacters ? [] : Array.from(text);
  if (characters.length <= maxCharacters) return [{ text, isNote: false }];
  const half = Math.floor(maxCharacters / 2);
  const numLeftOut = characters.length - 2 * half;
  return [
    { text: characters.slice(0, half).join(""), isNote: false },
    { text: `[… ${withCommas(numLeftOut)} characters …]`, isNote: true },
    { text: characters.slice(-half).join(""), isNote: false },
  ];
}
