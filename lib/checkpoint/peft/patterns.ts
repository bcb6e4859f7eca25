/**
 * Patterns for paths of modules. JavaScript's own regular expressions are of no use for those of a file from outside:
 * some take exponential time for a path of thirty characters.
 */
import { PatternAutomaton } from "./pattern-automaton.js";
import { parsePattern, PatternProblem } from "./pattern-syntax.js";

/** Characters of a regular expression. */
const maxPatternLength = 4_096;

/** What is wrong with a regular expression for module paths, if anything; in Python's syntax, it means the same here. */
export function patternProblem(pattern: string): string | undefined {
  if (pattern.length > maxPatternLength) {
    return `which has more than ${maxPatternLength} characters`;
  }
  try {
    automatonOf(pattern);
    return undefined;
  } catch (error) {
    if (error instanceof PatternProblem) return error.message;
    throw error;
  }
}

/** The same for what peft puts between other expressions, where a choice would take in those. */
export function partProblem(pattern: string): string | undefined {
  const problem = patternProblem(pattern);
  if (problem !== undefined || parsePattern(pattern).kind !== "choice") return problem;
  return "whose | reaches beyond it in peft; write parentheses around the choices";
}

/** States that a search may be in; of characters one after the other there is nothing to search: 0. @throws PatternProblem */
export function numStatesOf(pattern: string): number {
  const automaton = automatonOf(pattern);
  return automaton.isWord ? 0 : automaton.numStates;
}

/** Whether a whole path is what a pattern describes. @throws PatternProblem */
export const matchesWhole = (pattern: string, path: string): boolean =>
  automatonOf(pattern).matches(path);

/** Whether a path, or the last parts of one, are what a pattern describes: peft's `get_pattern_key`. @throws PatternProblem */
export const matchesEnd = (pattern: string, path: string): boolean =>
  automatonOf(pattern).matchesAfter(path, startsOfParts(path));

/** Where parts of a path begin; of the last one that was asked for, which all patterns of an adapter meet in turn. */
function startsOfParts(path: string): readonly number[] {
  if (lastParts.path === path) return lastParts.starts;
  const starts = [0, ...Array.from(path.matchAll(/\./g), ({ index }) => index + 1)];
  lastParts = { path, starts };
  return starts;
}

let lastParts: { readonly path: string; readonly starts: readonly number[] } = {
  ...{ path: "", starts: [0] },
};

/** Automata by their pattern: each meets every path of a model, several times. */
const automata = new Map<string, PatternAutomaton>();
/** Some 60 MB. */
const maxKeptStates = 500_000;
let numKeptStates = 0;

function automatonOf(pattern: string): PatternAutomaton {
  const known = automata.get(pattern);
  if (known !== undefined) return known;
  const made = new PatternAutomaton(parsePattern(pattern));
  if (numKeptStates + made.numStates > maxKeptStates) {
    automata.clear();
    numKeptStates = 0;
  }
  automata.set(pattern, made);
  numKeptStates += made.numStates;
  return made;
}
