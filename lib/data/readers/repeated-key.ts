/**
 * A key that an object in JSON text has twice, of which a parser keeps the last without a word.
 *
 * @param text JSON that `JSON.parse` has accepted
 */
export function repeatedKey(text: string): string | undefined {
  /** Keys of the objects that are open; undefined for an object without one so far. */
  const open: (Set<string> | undefined)[] = [];
  let position = 0;
  for (;;) {
    const quote = text.indexOf('"', position);
    const end = quote < 0 ? text.length : quote;
    for (let i = position; i < end; i++) {
      const code = text.charCodeAt(i);
      if (code === openObject) open.push(undefined);
      else if (code === closeObject) open.pop();
    }
    if (quote < 0) return undefined;
    position = endOfString(text, quote);
    let after = position;
    while (text.charCodeAt(after) <= blank) after++;
    if (text.charCodeAt(after) !== colon) continue;
    const key = JSON.parse(text.slice(quote, position)) as string;
    const keys = (open[open.length - 1] ??= new Set());
    if (keys.has(key)) return key;
    keys.add(key);
  }
}

const [openObject, closeObject, colon, blank] = [0x7b, 0x7d, 0x3a, 0x20];

/** Behind the closing quote of a string that begins at `quote`. */
function endOfString(text: string, quote: number): number {
  for (let from = quote + 1; ; ) {
    const end = text.indexOf('"', from);
    if (end < 0) return text.length;
    let numBackslashes = 0;
    while (text[end - 1 - numBackslashes] === "\\") numBackslashes++;
    if (numBackslashes % 2 === 0) return end + 1;
    from = end + 1;
  }
}
