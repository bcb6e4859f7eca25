import { createHash, type Hash } from "node:crypto";

/**
 * What a shard has answered of a step, so that a coordinator that did not hear it, or a later one that begins the step
 * again, gets the same answer and nothing is done twice.
 */
export class StepAnswers {
  readonly #kept = new Map<string, { readonly asked: string; readonly answer: unknown }>();

  /**
   * The answer that was given to a call; a call that comes first is carried out.
   *
   * @param asked what the call was about: another one under the same name is the caller's mistake
   * @param differs makes the error for that
   */
  once<T>(call: string, asked: unknown, carryOut: () => T, differs: () => Error): T {
    const digest = contentDigest(asked);
    const kept = this.#kept.get(call);
    if (kept !== undefined) {
      if (kept.asked !== digest) throw differs();
      return kept.answer as T;
    }
    const answer = carryOut();
    this.#kept.set(call, { asked: digest, answer });
    return answer;
  }

  has(call: string): boolean {
    return this.#kept.has(call);
  }

  clear(): void {
    this.#kept.clear();
  }
}

/** SHA-256 of a value of numbers, texts, flags, arrays, float32 arrays and records of them; keys in any order. */
function contentDigest(value: unknown): string {
  const hash = createHash("sha256");
  add(hash, value);
  return hash.digest("hex");
}

function add(hash: Hash, value: unknown): void {
  if (value instanceof Float32Array) {
    hash.update(`floats ${value.length}:`);
    // On shared memory, of which OpenSSL takes no view.
    hash.update(Buffer.from(value.buffer, value.byteOffset, value.byteLength));
  } else if (Array.isArray(value)) {
    hash.update(`list ${value.length}:`);
    for (const item of value) add(hash, item);
  } else if (typeof value === "object" && value !== null) {
    const entries = Object.entries(value).filter(([, item]) => item !== undefined);
    hash.update(`record ${entries.length}:`);
    for (const [key, item] of entries.sort(([one], [other]) => (one < other ? -1 : 1))) {
      add(hash, key);
      add(hash, item);
    }
  } else {
    const text = `${typeof value} ${Object.is(value, -0) ? "-0" : String(value)}`;
    hash.update(`${text.length}:${text}`);
  }
}
