import { type CharacterTest, type Pattern, type PlaceTest, refusal } from "./pattern-syntax.js";

/** A state of the automaton of a pattern; `next` are the states that follow. */
type State =
  | { readonly kind: "character"; readonly test: CharacterTest; readonly next: number }
  | { readonly kind: "place"; readonly test: PlaceTest; readonly next: number }
  | {
      readonly kind: "ahead";
      readonly start: number;
      readonly isNot: boolean;
      readonly next: number;
    }
  | { readonly kind: "fork"; next: readonly number[] };

/** States of a pattern: a repetition of n times has n of what it repeats. */
const maxStates = 1_024;

/** The state in which a text is what the pattern describes. */
const final = -1;

/** Whether a text, or what a text begins with from somewhere on, is what a pattern describes. */
export class PatternAutomaton {
  readonly #states: State[] = [];
  readonly #start: number;
  /** Characters of whatever the pattern describes; undefined: not always as many. */
  readonly #length: number | undefined;
  /** The characters of a pattern that is no more than these; undefined: it is more. */
  readonly #word: readonly CharacterTest[] | undefined;
  /** By state, the search that came to it last. */
  readonly #marks: Float64Array;
  #lastMark = 0;

  /** @throws PatternProblem for one of too many states */
  constructor(pattern: Pattern) {
    this.#start = this.#add(pattern, final);
    this.#length = lengthOf(pattern);
    this.#marks = new Float64Array(this.#states.length);
    this.#word = wordOf(pattern);
  }

  /** Whether the pattern is characters one after the other, as a whole path is. */
  get isWord(): boolean {
    return this.#word !== undefined;
  }

  get numStates(): number {
    return this.#states.length;
  }

  /** Whether a text as a whole is what the pattern describes. */
  matches(text: string): boolean {
    return this.#run(text, { start: this.#start, starts: [0], isWhole: true, ahead: new Map() });
  }

  /** Whether what follows one of some places of a text, in their order, is what the pattern describes. */
  matchesAfter(text: string, places: readonly number[]): boolean {
    const starts =
      this.#length === undefined
        ? places
        : places.filter((place) => place + (this.#length as number) === text.length);
    const word = this.#word;
    if (word !== undefined) {
      return starts.some((start) => word.every((test, i) => test(text.charCodeAt(start + i))));
    }
    return this.#run(text, { start: this.#start, starts, isWhole: true, ahead: new Map() });
  }

  /** In time that grows with states times characters: each state is entered once for each character. */
  #run(
    text: string,
    {
      start,
      starts,
      isWhole,
      ahead,
    }: {
      readonly start: number;
      readonly starts: readonly number[];
      readonly isWhole: boolean;
      /** What was found to follow, by place and state. */
      readonly ahead: Map<number, boolean>;
    },
  ): boolean {
    let entered: number[] = [];
    for (let [at, numStarted] = [starts[0] ?? 0, 0]; ; at++) {
      if (starts[numStarted] === at) {
        entered.push(start);
        numStarted++;
      }
      if (entered.length === 0 && numStarted === starts.length) return false;
      const { states, isFinal } = this.#reach(text, at, entered, ahead);
      if (isFinal && (!isWhole || at === text.length)) return true;
      if (at === text.length) return false;
      const character = text.charCodeAt(at);
      entered = [];
      for (const state of states) if (state.test(character)) entered.push(state.next);
    }
  }

  /** The states that take a character, among those that are reached without one. */
  #reach(text: string, at: number, open: number[], ahead: Map<number, boolean>) {
    // States of what is looked ahead to are others, so that marks of a run within stay apart.
    const mark = ++this.#lastMark;
    const marks = this.#marks;
    const states: Extract<State, { kind: "character" }>[] = [];
    let isFinal = false;
    for (let index = open.pop(); index !== undefined; index = open.pop()) {
      if (index === final) isFinal = true;
      if (index === final || marks[index] === mark) continue;
      marks[index] = mark;
      const state = this.#states[index] as State;
      if (state.kind === "character") states.push(state);
      else if (state.kind === "fork") for (const next of state.next) open.push(next);
      else if (this.#holds(state, index, text, at, ahead)) open.push(state.next);
    }
    return { states, isFinal };
  }

  #holds(
    state: Extract<State, { kind: "place" | "ahead" }>,
    index: number,
    text: string,
    at: number,
    ahead: Map<number, boolean>,
  ): boolean {
    if (state.kind === "place") return state.test(text.charCodeAt(at - 1), text.charCodeAt(at));
    const key = at * this.#states.length + index;
    const found =
      ahead.get(key) ??
      this.#run(text, { start: state.start, starts: [at], isWhole: false, ahead });
    ahead.set(key, found);
    return found !== state.isNot;
  }

  /** @returns the state with which the pattern begins, where `next` follows it */
  #add(pattern: Pattern, next: number): number {
    switch (pattern.kind) {
      case "character":
      case "place":
        return this.#push({ ...pattern, next });
      case "ahead":
        return this.#push({
          ...{ kind: "ahead", isNot: pattern.isNot, next },
          start: this.#add(pattern.of, final),
        });
      case "sequence":
        return pattern.parts.reduceRight((after, part) => this.#add(part, after), next);
      case "choice":
        return this.#push({
          kind: "fork",
          next: pattern.choices.map((choice) => this.#add(choice, next)),
        });
      case "repeat":
        return this.#repeat(pattern, next);
    }
  }

  #repeat({ of, least, most }: Extract<Pattern, { kind: "repeat" }>, next: number): number {
    let after = next;
    if (most === Infinity) {
      const again: State = { kind: "fork", next: [] };
      after = this.#push(again);
      again.next = [this.#add(of, after), next];
    }
    for (let i = least; most !== Infinity && i < most; i++) {
      after = this.#push({ kind: "fork", next: [this.#add(of, after), next] });
    }
    for (let i = 0; i < least; i++) after = this.#add(of, after);
    return after;
  }

  #push(state: State): number {
    if (this.#states.length >= maxStates) {
      throw refusal("which repeats more than a pattern for names may");
    }
    return this.#states.push(state) - 1;
  }
}

/** Characters of whatever a pattern describes; undefined: not always as many. */
function lengthOf(pattern: Pattern): number | undefined {
  switch (pattern.kind) {
    case "character":
      return 1;
    case "place":
    case "ahead":
      return 0;
    case "sequence": {
      const lengths = pattern.parts.map(lengthOf);
      return lengths.reduce<number | undefined>(
        (sum, each) => (sum === undefined || each === undefined ? undefined : sum + each),
        0,
      );
    }
    default:
      return undefined;
  }
}

/** The characters of a pattern that is one after the other; undefined: it is more. */
function wordOf(pattern: Pattern): readonly CharacterTest[] | undefined {
  const parts = pattern.kind === "sequence" ? pattern.parts : [pattern];
  const tests = parts.flatMap((part) => (part.kind === "character" ? part.test : []));
  return tests.length === parts.length ? tests : undefined;
}
