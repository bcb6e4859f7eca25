/**
 * What one rendering may do. A template is a file of whoever made the model, and loops within loops, texts that double
 * and lists of lists of lists would go on for ever or take all memory. Counted are operations, not time, so that
 * a template renders everywhere or nowhere.
 */

/** A conversation of a thousand messages takes some hundred thousand. */
const maxWork = 4_000_000;
/** Characters that count as one operation, and items of a list. */
const charsPerOperation = 16;
const itemsPerOperation = 2;
/** Longest text that a template makes, characters: some million tokens. */
const maxTextChars = 2 ** 24;
/** Longest list that a template makes; a range has at most a tenth of it. */
const maxItems = 1_000_000;

/** Rendering is synchronous, so one count serves all. */
let work = 0;

export function startRendering(): void {
  work = 0;
}

/** @throws Error where the rendering does too much */
export function spend(operations: number): void {
  work += operations;
  if (work > maxWork) throw new Error(`it does more than ${maxWork} operations`);
}

/** Counts going through a text or a list. @throws Error */
export function spendOn(value: unknown): void {
  if (typeof value === "string") spend(value.length / charsPerOperation);
  else if (Array.isArray(value)) spend(value.length / itemsPerOperation);
}

/** Before a text of so many characters is made. @throws Error */
export function checkText(numChars: number): void {
  if (numChars > maxTextChars) {
    throw new Error(`it makes a text of ${numChars} characters, more than ${maxTextChars}`);
  }
  spend(numChars / charsPerOperation);
}

/** Before a list of so many items is made. @throws Error */
export function checkList(numItems: number): void {
  if (numItems > maxItems)
    throw new Error(`it makes a list of ${numItems} items, more than ${maxItems}`);
  spend(numItems / itemsPerOperation);
}

/** The parts of a text with another text between them. @throws Error before it is too long */
export function joined(parts: readonly string[], between: string): string {
  let numChars = between.length * Math.max(0, parts.length - 1);
  for (const part of parts) numChars += part.length;
  checkText(numChars);
  return parts.join(between);
}

/** A text over and over. @throws Error before it is too long */
export function repeated(text: string, times: number): string {
  const whole = Number.isNaN(times) ? 0 : Math.max(0, Math.floor(times));
  checkText(text.length * whole);
  return text.repeat(whole);
}
