/** Regular expressions for paths of modules as Python writes them, those that a linear time suffices for. */

/** What one character may be, by its code. */
export type CharacterTest = (code: number) => boolean;

/** Between which characters a place lies; NaN stands for none. */
export type PlaceTest = (before: number, after: number) => boolean;

export type Pattern =
  | { readonly kind: "character"; readonly test: CharacterTest }
  | { readonly kind: "place"; readonly test: PlaceTest }
  | { readonly kind: "sequence"; readonly parts: readonly Pattern[] }
  | { readonly kind: "choice"; readonly choices: readonly Pattern[] }
  | {
      readonly kind: "repeat";
      readonly of: Pattern;
      readonly least: number;
      /** Infinity where there is no limit. */
      readonly most: number;
    }
  /** Whether something follows, without taking it. */
  | { readonly kind: "ahead"; readonly of: Pattern; readonly isNot: boolean };

/** Says what is wrong with a pattern, as a clause that follows its text. */
export class PatternProblem extends Error {}

/** Groups within groups. */
const maxDepth = 50;

const code = (character: string): number => character.charCodeAt(0);
const isDigit: CharacterTest = (c) => c >= 48 && c <= 57;
const isWord: CharacterTest = (c) =>
  isDigit(c) || (c >= 65 && c <= 90) || (c >= 97 && c <= 122) || c === 95;
const isSpace: CharacterTest = (c) => c === 32 || (c >= 9 && c <= 13);
const not =
  (test: CharacterTest): CharacterTest =>
  (c) =>
    !test(c);
const only =
  (wanted: number): CharacterTest =>
  (c) =>
    c === wanted;

/** Escapes that stand for one of several characters. */
const classes: Readonly<Record<string, CharacterTest>> = {
  ...{ d: isDigit, D: not(isDigit), w: isWord, W: not(isWord), s: isSpace, S: not(isSpace) },
};
/** Escapes that stand for one character. */
const controls: Readonly<Record<string, string>> = { n: "\n", r: "\r", t: "\t", f: "\f", v: "\v" };
const isBoundary: PlaceTest = (before, after) => isWord(before) !== isWord(after);
const places: Readonly<Record<string, PlaceTest>> = {
  ...{ b: isBoundary, B: (before, after) => !isBoundary(before, after) },
};

/** @throws PatternProblem */
export function parsePattern(text: string): Pattern {
  const parser = new Parser(text);
  const pattern = parser.choice(0);
  if (!parser.isAtEnd) throw noExpression("a ) closes nothing");
  return pattern;
}

/** What is wrong with a pattern, to be thrown; who checks it makes a message of it. */
export const refusal = (problem: string): PatternProblem => new PatternProblem(problem);

const noExpression = (why: string): PatternProblem =>
  refusal(`which is no regular expression (${why})`);

class Parser {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  get isAtEnd(): boolean {
    return this.#at >= this.#text.length;
  }

  choice(depth: number): Pattern {
    if (depth > maxDepth) throw refusal(`which has more than ${maxDepth} nested groups`);
    const choices = [this.#sequence(depth)];
    while (this.#take("|")) choices.push(this.#sequence(depth));
    return choices.length === 1 ? (choices[0] as Pattern) : { kind: "choice", choices };
  }

  #sequence(depth: number): Pattern {
    const parts: Pattern[] = [];
    while (!this.isAtEnd && !this.#isNext("|") && !this.#isNext(")")) {
      parts.push(this.#repeated(this.#one(depth)));
    }
    return parts.length === 1 ? (parts[0] as Pattern) : { kind: "sequence", parts };
  }

  #one(depth: number): Pattern {
    if (this.#take("(")) return this.#group(depth);
    if (this.#take("[")) return { kind: "character", test: this.#class() };
    if (this.#take("^")) return { kind: "place", test: (before) => Number.isNaN(before) };
    if (this.#take("$")) return { kind: "place", test: (_, after) => Number.isNaN(after) };
    if (this.#take(".")) return { kind: "character", test: not(only(10)) };
    if (this.#take("\\")) return this.#escape();
    if (this.#quantifier() !== undefined) throw noExpression("nothing to repeat");
    return { kind: "character", test: only(code(this.#next())) };
  }

  #group(depth: number): Pattern {
    const isAhead = this.#take("?=");
    const isNot = !isAhead && this.#take("?!");
    if (!isAhead && !isNot && !this.#take("?:") && this.#isNext("?")) {
      throw noExpression("of groups that begin with ? there are (?:, (?= and (?!");
    }
    const of = this.choice(depth + 1);
    if (!this.#take(")")) throw noExpression("a ( is not closed");
    // A sequence of its own, so that choices within show where they end.
    return isAhead || isNot ? { kind: "ahead", of, isNot } : { kind: "sequence", parts: [of] };
  }

  #escape(): Pattern {
    const letter = this.#next();
    const place = Object.hasOwn(places, letter) ? places[letter] : undefined;
    if (place !== undefined) return { kind: "place", test: place };
    return { kind: "character", test: this.#escaped(letter).test };
  }

  /** What a letter behind a backslash stands for; as a character, where it is one. */
  #escaped(letter: string): { readonly test: CharacterTest; readonly single?: number } {
    const test = Object.hasOwn(classes, letter) ? classes[letter] : undefined;
    if (test !== undefined) return { test };
    if (isDigit(code(letter))) {
      throw refusal(`whose \\${letter} repeats what was met before, which takes no limited time`);
    }
    const control = Object.hasOwn(controls, letter) ? controls[letter] : undefined;
    if (control === undefined && /[A-Za-z]/.test(letter)) {
      throw refusal(`whose \\${letter} is not known here; a pattern is for the whole path anyway`);
    }
    const single = code(control ?? letter);
    return { test: only(single), single };
  }

  #class(): CharacterTest {
    const isNot = this.#take("^");
    const tests: CharacterTest[] = [];
    // A ] that stands first is one of the characters.
    for (let isFirst = true; isFirst || !this.#isNext("]"); isFirst = false) {
      const low = this.#classMember();
      const { single: first } = low;
      if (first === undefined || !this.#isNext("-") || this.#text[this.#at + 1] === "]") {
        tests.push(low.test);
        continue;
      }
      this.#at++;
      const { single: last } = this.#classMember();
      if (last === undefined || last < first)
        throw noExpression("a range of [] ends before it begins");
      tests.push((c) => first <= c && c <= last);
    }
    this.#at++;
    return (c) => tests.some((test) => test(c)) !== isNot;
  }

  #classMember(): { readonly test: CharacterTest; readonly single?: number } {
    if (this.isAtEnd) throw noExpression("a [ is not closed");
    if (this.#take("\\")) return this.#escaped(this.#next());
    const single = code(this.#next());
    return { test: only(single), single };
  }

  #repeated(of: Pattern): Pattern {
    const bounds = this.#quantifier();
    if (bounds === undefined) return of;
    this.#at += bounds.length;
    // Whether the longest or the shortest comes first is the same for who asks whether there is one.
    this.#take("?");
    if (this.#quantifier() !== undefined) throw noExpression("multiple repeat");
    if (bounds.most < bounds.least) throw noExpression("a {} has more than its most");
    return { kind: "repeat", of, least: bounds.least, most: bounds.most };
  }

  /** The repetition that is written here; it is not taken. */
  #quantifier():
    | { readonly least: number; readonly most: number; readonly length: number }
    | undefined {
    const [text, least, comma, most] =
      /^(?:[*+?]|\{(\d*)(,?)(\d*)\})/.exec(this.#text.slice(this.#at, this.#at + 24)) ?? [];
    if (text === undefined || text === "{}") return undefined;
    const { length } = text;
    if (text === "*") return { least: 0, most: Infinity, length };
    if (text === "+") return { least: 1, most: Infinity, length };
    if (text === "?") return { least: 0, most: 1, length };
    const from = Number(least);
    if (comma === "") return { least: from, most: from, length };
    return { least: from, most: most === "" ? Infinity : Number(most), length };
  }

  #isNext(text: string): boolean {
    return this.#text.startsWith(text, this.#at);
  }

  #take(text: string): boolean {
    if (!this.#isNext(text)) return false;
    this.#at += text.length;
    return true;
  }

  /** One character. */
  #next(): string {
    if (this.isAtEnd) throw noExpression("it ends with a backslash");
    return this.#text[this.#at++] as string;
  }
}
