const escapeSequence = "\u001b\\[[0-9;?]*[A-Za-z]";
const escapePattern = new RegExp(escapeSequence, "g");

/**
 * Text from outside (a model's output, a host's name) without anything that a terminal obeys: control
 * characters become spaces, a newline stays where `keepNewlines`.
 */
export function printable(text: string, keepNewlines = false): string {
  let out = "";
  for (const character of text) {
    const code = character.codePointAt(0) ?? 0;
    const isControl = code < 0x20 || (code >= 0x7f && code < 0xa0);
    // Bidirectional overrides would reorder the rest of the line.
    const isBidi = (code >= 0x202a && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
    if (character === "\n" && keepNewlines) out += character;
    else out += isControl || isBidi ? " " : character;
  }
  return out;
}

/** Columns that a terminal uses for the text; escape sequences count nothing. */
export function displayWidth(text: string): number {
  let width = 0;
  for (const character of text.replace(escapePattern, "")) {
    width += characterWidth(character.codePointAt(0) ?? 0);
  }
  return width;
}

function characterWidth(code: number): 0 | 1 | 2 {
  const isCombining =
    (code >= 0x300 && code <= 0x36f) ||
    (code >= 0x200b && code <= 0x200f) ||
    (code >= 0xfe00 && code <= 0xfe0f) ||
    (code >= 0x20d0 && code <= 0x20ff);
  if (isCombining) return 0;
  const isWide =
    (code >= 0x1100 && code <= 0x115f) ||
    (code >= 0x2e80 && code <= 0xa4cf) ||
    (code >= 0xac00 && code <= 0xd7a3) ||
    (code >= 0xf900 && code <= 0xfaff) ||
    (code >= 0xfe30 && code <= 0xfe6f) ||
    (code >= 0xff00 && code <= 0xff60) ||
    (code >= 0xffe0 && code <= 0xffe6) ||
    (code >= 0x1f300 && code <= 0x1faff) ||
    (code >= 0x20000 && code <= 0x3fffd);
  return isWide ? 2 : 1;
}

/** Cuts to a width; a cut text ends with an ellipsis. Escape sequences are kept whole. */
export function fit(text: string, columns: number): string {
  if (displayWidth(text) <= columns) return text;
  if (columns <= 0) return "";
  let out = "";
  let width = 0;
  let sawEscape = false;
  for (const part of text.split(new RegExp(`(${escapeSequence})`))) {
    if (part.startsWith("\u001b")) {
      sawEscape = true;
      out += part;
      continue;
    }
    for (const character of part) {
      const next = characterWidth(character.codePointAt(0) ?? 0);
      if (width + next > columns - 1) return `${out}…${sawEscape ? "\u001b[0m" : ""}`;
      out += character;
      width += next;
    }
  }
  return out;
}

/** Fills with spaces on the right up to a width. */
export function pad(text: string, columns: number): string {
  return text + " ".repeat(Math.max(0, columns - displayWidth(text)));
}

/** Breaks at spaces; a word longer than a line is cut. Newlines in the text are kept as breaks. */
export function wrap(text: string, columns: number): string[] {
  const lines: string[] = [];
  for (const paragraph of text.split("\n")) {
    let line = "";
    for (let word of paragraph.split(/\s+/).filter((part) => part !== "")) {
      if (line !== "" && displayWidth(line) + 1 + displayWidth(word) > columns) {
        lines.push(line);
        line = "";
      }
      while (displayWidth(word) > columns) {
        let head = "";
        for (const character of word) {
          if (displayWidth(head + character) > columns) break;
          head += character;
        }
        if (head === "") break;
        lines.push(head);
        word = word.slice(head.length);
      }
      line = line === "" ? word : `${line} ${word}`;
    }
    lines.push(line);
  }
  return lines;
}

export interface Palette {
  readonly bold: (text: string) => string;
  readonly dim: (text: string) => string;
  readonly accent: (text: string) => string;
  readonly good: (text: string) => string;
  readonly bad: (text: string) => string;
}

const same = (text: string): string => text;
export const plainPalette: Palette = Object.freeze({
  bold: same,
  dim: same,
  accent: same,
  good: same,
  bad: same,
});

const sgr =
  (on: number, off: number) =>
  (text: string): string =>
    `\u001b[${on}m${text}\u001b[${off}m`;
/** The sixteen colours only: they follow the terminal's own theme, light or dark. */
export const colorPalette: Palette = Object.freeze({
  bold: sgr(1, 22),
  dim: sgr(2, 22),
  accent: sgr(36, 39),
  good: sgr(32, 39),
  bad: sgr(31, 39),
});
