/**
 * Matching of patterns without regular expressions, whose time for many `*` has no bound: this takes no more than
 * pattern times text.
 */

/** What one character may be; "rest" is any number of any. */
type Token = "rest" | ((character: string) => boolean);

/** Whether a sequence is what a pattern describes, some parts of which stand for any number of elements. */
function matches<P, S>(
  pattern: readonly P[],
  subject: ArrayLike<S>,
  isRest: (part: P) => boolean,
  isOne: (part: P, element: S) => boolean,
): boolean {
  let [at, element] = [0, 0];
  /** The last rest that was met, and how far it reaches so far. */
  let [rest, reach] = [-1, 0];
  while (element < subject.length) {
    const part = pattern[at];
    if (part !== undefined && isRest(part)) {
      [rest, reach] = [at++, element];
    } else if (part !== undefined && isOne(part, subject[element] as S)) {
      at++;
      element++;
    } else if (rest >= 0) {
      at = rest + 1;
      element = ++reach;
    } else return false;
  }
  return pattern.slice(at).every(isRest);
}

/** The characters of `[...]`, as Python's fnmatch reads them. */
function characterClass(content: string): Token {
  const isNot = content.startsWith("!");
  const ranges = [...content.slice(isNot ? 1 : 0).matchAll(/(.)-(.)|(.)/gs)].map(
    ([, from = "", to = "", one]) => (one === undefined ? ([from, to] as const) : [one, one]),
  );
  return (character) =>
    ranges.some(([from = "", to = ""]) => from <= character && character <= to) !== isNot;
}

/**
 * What a name has to be. `*` stands for any part of it, `?` for one character.
 *
 * @param hasClasses `[a-c]` and `[!a-c]` stand for one character, too
 */
export function nameMatcher(
  part: string,
  { hasClasses }: { readonly hasClasses: boolean },
): (name: string) => boolean {
  const pieces = hasClasses ? /\[([^\]]+)\]|./gs : /()?./gs;
  const tokens = [...part.matchAll(pieces)].map(([piece, content]): Token => {
    if (content !== undefined) return characterClass(content);
    if (piece === "*") return "rest";
    return piece === "?" ? () => true : (character) => character === piece;
  });
  return (name) =>
    matches(
      tokens,
      name,
      (token) => token === "rest",
      (token, character: string) => token !== "rest" && token(character),
    );
}

/** A pattern over whole paths, as the README.md of a data set writes them; `**` stands for any directories. */
export function pathMatcher(pattern: string): (path: string) => boolean {
  const written = pattern.split("/");
  // At the end it is whatever lies below, which is something.
  const parts = (written.at(-1) === "**" ? [...written, "*"] : written).map((part) =>
    part === "**" ? ("rest" as const) : nameMatcher(part, { hasClasses: true }),
  );
  return (path) =>
    matches(
      parts,
      path.split("/"),
      (part) => part === "rest",
      (part, name: string) => part !== "rest" && part(name),
    );
}
