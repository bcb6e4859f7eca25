/** Where the first of the stop strings begins in the text. */
export function firstStop(text: string, stopStrings: readonly string[]): number | undefined {
  let first: number | undefined;
  for (const stop of stopStrings) {
    const index = text.indexOf(stop);
    if (index >= 0 && (first === undefined || index < first)) first = index;
  }
  return first;
}

/**
 * The length of the text that is settled whatever comes next: not the first bytes of a character
 * (decoders write U+FFFD for them), and not the beginning of a stop string.
 */
export function settledLength(text: string, stopStrings: readonly string[]): number {
  let end = text.length;
  while (end > 0 && text[end - 1] === "\ufffd") end--;
  let settled = end;
  for (const stop of stopStrings) {
    for (let length = Math.min(stop.length - 1, end); length > 0; length--) {
      if (stop.startsWith(text.slice(end - length, end))) {
        settled = Math.min(settled, end - length);
        break;
      }
    }
  }
  return settled;
}
