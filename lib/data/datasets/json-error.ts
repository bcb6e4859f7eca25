/** Where a text stops being JSON (RFC 8259). */
interface JsonError {
  /** UTF-16 units before the first wrong one. */
  readonly index: number;
  readonly problem: string;
}

const whitespace = /[ \t\n\r]*/y;
const number = /-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?/y;
const literal = /true|false|null/y;
const plainCharacters = /[^"\\\u0000-\u001f]*/y;
const escape = /\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/y;

/** What Python's json.dumps writes for numbers that JSON lacks, and what str writes. */
const pythonWord = /(?:NaN|-?Infinity|None|True|False)\b/y;
const pythonAdvice: Readonly<Record<string, string>> = {
  None: "json.dumps writes null",
  True: "json.dumps writes true",
  False: "json.dumps writes false",
};

/** Finds the error in a text that `JSON.parse` refused. Keeps its own stack, so depth cannot overflow it. */
export function findJsonError(text: string): JsonError {
  let index = 0;
  const take = (pattern: RegExp): boolean => {
    pattern.lastIndex = index;
    const match = pattern.exec(text);
    if (match === null) return false;
    index += match[0].length;
    return true;
  };
  const takeString = (): boolean => {
    if (text[index] !== '"') return false;
    index++;
    do take(plainCharacters);
    while (take(escape));
    if (text[index] !== '"') return false;
    index++;
    return true;
  };
  const wrong = (expected: string): JsonError => {
    pythonWord.lastIndex = index;
    const word = pythonWord.exec(text)?.[0];
    if (word !== undefined) {
      const advice = pythonAdvice[word] ?? "write null for a value that is missing";
      return {
        index,
        problem: `found ${word}, which Python writes and JSON does not have: ${advice}`,
      };
    }
    const found = index >= text.length ? "the end of the line" : JSON.stringify(text[index]);
    const isRepr = text[index] === "'";
    const advice = isRepr ? " (in Python, json.dumps writes JSON, and str does not)" : "";
    return { index, problem: `found ${found} where ${expected} was expected${advice}` };
  };

  const closers: ("}" | "]")[] = [];
  for (;;) {
    // A value, or the first key of an object.
    take(whitespace);
    let opened = false;
    const character = text[index];
    if (character === "{" || character === "[") {
      index++;
      closers.push(character === "{" ? "}" : "]");
      take(whitespace);
      if (text[index] === closers.at(-1)) {
        index++;
        closers.pop();
      } else {
        opened = true;
      }
    } else if (character === '"') {
      if (!takeString()) return wrong("the rest of a string");
    } else if (!take(literal) && !take(number)) {
      return wrong("a value");
    }
    // After a value: a comma, or the ends of what is open.
    while (!opened) {
      take(whitespace);
      const closer = closers.at(-1);
      if (closer === undefined) return wrong("the end of the line");
      if (text[index] === closer) {
        index++;
        closers.pop();
        continue;
      }
      if (text[index] !== ",") return wrong(`"," or "${closer}"`);
      index++;
      break;
    }
    if (closers.at(-1) === "}") {
      take(whitespace);
      if (!takeString()) return wrong("a key in double quotes");
      take(whitespace);
      if (text[index] !== ":") return wrong('":"');
      index++;
    }
  }
}
