/** A half-open range of UTF-16 units of a text. */
export interface TextSpan {
  readonly start: number;
  readonly end: number;
  /** How much its tokens count in the loss; absent: 1. */
  readonly weight?: number;
}

export interface MarkedText {
  readonly text: string;
  readonly spans: readonly TextSpan[];
}

// The library drops `{% generation %}`, with the line ends around it. A statement in its place that
// writes a variable keeps the whitespace rules of a statement (trim_blocks, lstrip_blocks, dashes), so
// the text is the one that transformers renders, and the variables show where the block was.
const startVariable = "lockstep_generation_start";
const endVariable = "lockstep_generation_end";
const tag = /\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}/g;

/** @param template source of a chat template */
export function hasGenerationTags(template: string): boolean {
  return template.search(tag) >= 0;
}

export function exposeGenerationTags(template: string): string {
  return template.replace(
    tag,
    (_, before: string, end: string | undefined, after: string) =>
      `{%${before} if true %}{{ ${end === undefined ? startVariable : endVariable} }}{% endif ${after}%}`,
  );
}

/** What a render gets in its context. */
export function generationMarks(start: string, end: string): Record<string, string> {
  return { [startVariable]: start, [endVariable]: end };
}

/** Two marks that do not occur in a text. U+FDD0 and U+FDD1 are noncharacters: no text should hold them. */
export function marksOutside(text: string): { start: string; end: string } {
  for (let n = 0; ; n++) {
    const middle = n === 0 ? "" : String(n);
    const [start, end] = [`\uFDD0${middle}\uFDD0`, `\uFDD1${middle}\uFDD1`];
    if (!text.includes(start) && !text.includes(end)) return { start, end };
  }
}

/** Takes the marks out of a rendered text. */
export function takeMarks(marked: string, marks: { start: string; end: string }): MarkedText {
  const spans: TextSpan[] = [];
  let text = "";
  let position = 0;
  for (;;) {
    const start = marked.indexOf(marks.start, position);
    const end = start < 0 ? -1 : marked.indexOf(marks.end, start);
    if (end < 0) break;
    text += marked.slice(position, start);
    const answer = marked.slice(start + marks.start.length, end);
    spans.push({ start: text.length, end: text.length + answer.length });
    text += answer;
    position = end + marks.end.length;
  }
  return { text: text + marked.slice(position), spans };
}
