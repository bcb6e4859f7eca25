import { LockstepError } from "#lib/core/errors/index";
import type { Session } from "#lib/graph/session";
import type { DecodePrograms, ForwardPrograms } from "./decode-programs.js";

/** What a call gives for each row: its most probable next token, or the scores of all. */
type Wanted = "token" | "logits";

/**
 * Rows that grow by a token a call, each over its cached keys and values. Rows may differ in length;
 * what a row gives does not depend on the others.
 */
export class Decoder {
  readonly #session: Session;
  readonly #programs: DecodePrograms;
  /** Tokens that each row has in the cache. */
  readonly #lengths: Int32Array;
  #isReady = false;

  constructor(session: Session, programs: DecodePrograms) {
    this.#session = session;
    this.#programs = programs;
    this.#lengths = new Int32Array(programs.shape.batchSize);
  }

  get batchSize(): number {
    return this.#lengths.length;
  }

  get maxLength(): number {
    return this.#programs.shape.maxLength;
  }

  /**
   * Starts over with new rows.
   *
   * @param prompts at most batchSize rows of 1 to maxLength tokens
   * @returns one entry a prompt
   */
  start(prompts: readonly Int32Array[], wanted: "token"): Int32Array;
  start(prompts: readonly Int32Array[], wanted: "logits"): Float32Array[];
  start(prompts: readonly Int32Array[], wanted: Wanted): Int32Array | Float32Array[] {
    for (const prompt of prompts) {
      if (
        prompt.length === 0 ||
        prompt.length > this.maxLength ||
        prompts.length > this.batchSize
      ) {
        throw new LockstepError("E_GRAPH_SHAPE", {
          op: "generate",
          expected: `at most ${this.batchSize} prompts of 1 to ${this.maxLength} tokens`,
          got: `${prompts.length}, one of ${prompt.length} tokens`,
        });
      }
    }
    if (!this.#isReady) this.#session.run(this.#programs.init, {});
    this.#isReady = true;
    this.#lengths.fill(0);
    const { chunk, prefix } = this.#programs;
    const rows =
      prefix.length === 0 ? prompts : prompts.map((prompt) => Int32Array.of(...prefix, ...prompt));
    const longest = Math.max(...rows.map((row) => row.length));
    const results: (number | Float32Array)[] = [];
    for (let start = 0; start < longest; start += chunk.numTokens) {
      const end = start + chunk.numTokens;
      const parts = rows.map((row) => row.subarray(start, end));
      const outputs = this.#forward(chunk, parts, wanted);
      rows.forEach(({ length }, row) => {
        if (length > start && length <= end) {
          results[row] = outputs[row] as number | Float32Array;
        }
      });
    }
    return wanted === "token" ? Int32Array.from(results as number[]) : (results as Float32Array[]);
  }

  /**
   * Appends a token to rows.
   *
   * @param tokens a token for each row; a negative one leaves its row as it is, and what the call
   *   gives for that row means nothing
   */
  append(tokens: Int32Array, wanted: "token"): Int32Array;
  append(tokens: Int32Array, wanted: "logits"): Float32Array[];
  append(tokens: Int32Array, wanted: Wanted): Int32Array | Float32Array[] {
    const parts = Array.from(tokens, (token) =>
      token < 0 ? new Int32Array(0) : Int32Array.of(token),
    );
    const outputs = this.#forward(this.#programs.step, parts, wanted);
    return wanted === "token" ? Int32Array.from(outputs as number[]) : (outputs as Float32Array[]);
  }

  /** Runs one call; each row gets its part, from its length on. */
  #forward(
    { numTokens: q, ...programs }: ForwardPrograms,
    parts: readonly Int32Array[],
    wanted: Wanted,
  ): readonly (number | Float32Array)[] {
    const size = this.batchSize * q;
    const feeds = {
      tokens: new Int32Array(size),
      positions: new Int32Array(size),
      slots: new Int32Array(size).fill(this.#programs.paddingSlot),
      last: Int32Array.from(this.#lengths, (_, row) => row * q),
    };
    parts.forEach((part, row) => {
      const length = this.#lengths[row] as number;
      feeds.tokens.set(part, row * q);
      part.forEach((_, index) => {
        feeds.positions[row * q + index] = length + index;
        feeds.slots[row * q + index] = length + index;
      });
      feeds.last[row] = row * q + Math.max(part.length - 1, 0);
      this.#lengths[row] = length + part.length;
    });
    const values = this.#session.run(programs[wanted], feeds)[wanted] as Int32Array | Float32Array;
    const width = values.length / this.batchSize;
    return parts.map((_, row) =>
      wanted === "token"
        ? (values[row] as number)
        : (values as Float32Array).subarray(row * width, (row + 1) * width),
    );
  }
}
