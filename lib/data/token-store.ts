import { randomBytes } from "node:crypto";
import { closeSync, mkdirSync, openSync, readSync, unlinkSync, writeSync } from "node:fs";
import { join } from "node:path";
import { explainSystemError } from "#lib/core/system-error";

/** 4 MiB. */
const chunkTokens = 2 ** 20;
/** 256 MiB; what comes later goes to a file. */
const maxTokensInMemory = 2 ** 26;

/**
 * A long array of int32 values that grows at its end: its start in memory, the rest in a file that
 * has no name, so that nothing is left of it whatever happens to the process.
 */
export class TokenStore {
  readonly #directory: string;
  readonly #maxChunksInMemory: number;
  /** Whole chunks in memory; the one being filled is the last. */
  readonly #chunks: Int32Array[] = [];
  /** Of the chunks in the file, which follow those in memory. */
  #numSpilled = 0;
  #tail = new Int32Array(chunkTokens);
  #tailLength = 0;
  #file: number | undefined;

  /** @param directory where the file is made, once it is needed */
  constructor(directory: string, { maxInMemory = maxTokensInMemory } = {}) {
    this.#directory = directory;
    this.#maxChunksInMemory = Math.floor(maxInMemory / chunkTokens);
  }

  get length(): number {
    return (this.#chunks.length + this.#numSpilled) * chunkTokens + this.#tailLength;
  }

  /** @returns the position of the first value. @throws E_DISK_FULL */
  append(values: ArrayLike<number>): number {
    const start = this.length;
    for (let taken = 0; taken < values.length; ) {
      const count = Math.min(values.length - taken, chunkTokens - this.#tailLength);
      for (let i = 0; i < count; i++) this.#tail[this.#tailLength + i] = values[taken + i] ?? 0;
      this.#tailLength += count;
      taken += count;
      if (this.#tailLength === chunkTokens) this.#finishChunk();
    }
    return start;
  }

  /** Fills `into` with the values from a position on. */
  read(start: number, into: Int32Array): void {
    for (let done = 0; done < into.length; ) {
      const position = start + done;
      const offset = position % chunkTokens;
      const chunk = (position - offset) / chunkTokens;
      const target = into.subarray(done, done + Math.min(into.length - done, chunkTokens - offset));
      const spilled = chunk - this.#chunks.length;
      const held = spilled < this.#numSpilled ? this.#chunks[chunk] : this.#tail;
      if (held === undefined) this.#readFile(spilled * chunkTokens + offset, target);
      else target.set(held.subarray(offset, offset + target.length));
      done += target.length;
    }
  }

  close(): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }

  #finishChunk(): void {
    this.#tailLength = 0;
    if (this.#numSpilled === 0 && this.#chunks.length < this.#maxChunksInMemory) {
      this.#chunks.push(this.#tail);
      this.#tail = new Int32Array(chunkTokens);
      return;
    }
    const file = (this.#file ??= openUnnamed(this.#directory));
    const bytes = bytesOf(this.#tail);
    const start = this.#numSpilled * bytes.length;
    try {
      for (let done = 0; done < bytes.length; ) {
        done += writeSync(file, bytes, done, bytes.length - done, start + done);
      }
    } catch (cause) {
      throw explainSystemError(cause, this.#directory);
    }
    this.#numSpilled++;
  }

  #readFile(position: number, into: Int32Array): void {
    const bytes = bytesOf(into);
    for (let done = 0; done < bytes.length; ) {
      const count = readSync(
        this.#file as number,
        bytes,
        done,
        bytes.length - done,
        position * Int32Array.BYTES_PER_ELEMENT + done,
      );
      if (count === 0)
        throw new RangeError("the tokens end before the position that was asked for");
      done += count;
    }
  }
}

const bytesOf = (values: Int32Array): Uint8Array =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

function openUnnamed(directory: string): number {
  mkdirSync(directory, { recursive: true });
  const path = join(directory, `tokens-${randomBytes(8).toString("hex")}.tmp`);
  const file = openSync(path, "wx+", 0o600);
  unlinkSync(path);
  return file;
}
