/** Half of a character: a UTF-16 unit of a surrogate pair without the other one. */
interface LoneSurrogate {
  /** Where it is in the value: names and indices; "" in a text itself. */
  readonly path: string;
  /** As it is written: U+D83D. */
  readonly code: string;
  /** UTF-16 units before it in its text. */
  readonly index: number;
}

interface Waiting {
  readonly value: unknown;
  readonly path: string;
}

const loneSurrogate = /\p{Surrogate}/u;

/**
 * The first half of a character in a text, or in the texts and names of a value as JSON has them.
 * Keeps its own stack, so depth cannot overflow it.
 */
export function findLoneSurrogate(value: unknown): LoneSurrogate | undefined {
  const waiting: Waiting[] = [{ value, path: "" }];
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const { path } = next;
    const inside: Waiting[] = [];
    if (typeof next.value === "string") {
      const index = next.value.search(loneSurrogate);
      if (index >= 0) return { path, code: codeOf(next.value, index), index };
    } else if (Array.isArray(next.value)) {
      (next.value as unknown[]).forEach((item, i) => {
        inside.push({ value: item, path: `${path}[${i}]` });
      });
    } else if (next.value instanceof Map || isPlain(next.value)) {
      const entries =
        next.value instanceof Map
          ? (next.value as ReadonlyMap<string, unknown>)
          : Object.entries(next.value);
      for (const [name, item] of entries) {
        const index = name.search(loneSurrogate);
        if (index >= 0) return { path, code: codeOf(name, index), index };
        inside.push({ value: item, path: path === "" ? name : `${path}.${name}` });
      }
    }
    // The first of them is looked at next.
    for (let i = inside.length - 1; i >= 0; i--) waiting.push(inside[i] as Waiting);
  }
  return undefined;
}

function isPlain(value: unknown): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

const codeOf = (text: string, index: number): string =>
  `U+${text.charCodeAt(index).toString(16).toUpperCase()}`;
