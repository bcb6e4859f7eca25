import { LockstepError } from "#lib/core/errors/index";
import type { FileReader } from "#lib/checkpoint/file-reader";

const windowBytes = 256 * 1024;

/** Reads little-endian values one after the other from the start of a file, through a small window. */
export class ByteCursor {
  readonly file: string;
  readonly fileBytes: number;
  /** Where reading stops: the end of the file, or the limit if that is less. */
  readonly #endBytes: number;
  readonly #reader: FileReader;
  #window = Buffer.alloc(0);
  #windowStart = 0;
  #position = 0;

  constructor(reader: FileReader, limitBytes: number) {
    this.#reader = reader;
    this.file = reader.file;
    this.fileBytes = reader.sizeBytes;
    this.#endBytes = Math.min(reader.sizeBytes, limitBytes);
  }

  get position(): number {
    return this.#position;
  }

  get remainingBytes(): number {
    return this.#endBytes - this.#position;
  }

  fail(problem: string, offset = this.#position): never {
    throw new LockstepError("E_GGUF_FORMAT", { file: this.file, offset, problem });
  }

  async uint8(): Promise<number> {
    const at = await this.#take(1);
    return this.#window.readUInt8(at);
  }

  async uint16(): Promise<number> {
    const at = await this.#take(2);
    return this.#window.readUInt16LE(at);
  }

  async uint32(): Promise<number> {
    const at = await this.#take(4);
    return this.#window.readUInt32LE(at);
  }

  async uint64(): Promise<bigint> {
    const at = await this.#take(8);
    return this.#window.readBigUInt64LE(at);
  }

  async float32(): Promise<number> {
    const at = await this.#take(4);
    return this.#window.readFloatLE(at);
  }

  async float64(): Promise<number> {
    const at = await this.#take(8);
    return this.#window.readDoubleLE(at);
  }

  /** A 64-bit count or offset that may not exceed `limit`. */
  async size(what: string, limit: number): Promise<number> {
    const at = this.#position;
    const value = await this.uint64();
    if (value > BigInt(Math.floor(limit))) {
      this.fail(`the ${what} is ${value}; at most ${Math.floor(limit)} is accepted`, at);
    }
    return Number(value);
  }

  async string(what: string, limitBytes: number): Promise<string> {
    const at = this.#position;
    const length = await this.size(`length of the ${what}`, limitBytes);
    if (length > this.remainingBytes) {
      this.fail(`the ${what} claims ${length} bytes, but only ${this.remainingBytes} are left`, at);
    }
    const start = await this.#take(length);
    return this.#decode(start, length);
  }

  /** The string at the cursor if the window holds all of it, else undefined and nothing is read. */
  stringNow(limitBytes: number): string | undefined {
    const start = this.#position - this.#windowStart;
    if (start < 0 || start + 8 > this.#window.byteLength) return undefined;
    const length = this.#window.readBigUInt64LE(start);
    if (length > BigInt(limitBytes)) return undefined;
    if (start + 8 + Number(length) > this.#window.byteLength) return undefined;
    this.#position += 8 + Number(length);
    return this.#decode(start + 8, Number(length));
  }

  #decode(start: number, length: number): string {
    return this.#window.toString("utf8", start, start + length);
  }

  /**
   * Makes `length` bytes available, steps over them, and gives their place in the window, which may
   * be another one than before.
   */
  async #take(length: number): Promise<number> {
    if (length > this.remainingBytes) {
      this.fail(`it ends where ${length} more bytes are needed`);
    }
    let start = this.#position - this.#windowStart;
    if (start + length > this.#window.byteLength) {
      const wanted = Math.min(Math.max(windowBytes, length), this.remainingBytes);
      this.#window = Buffer.from((await this.#reader.read(this.#position, wanted)).buffer);
      this.#windowStart = this.#position;
      start = 0;
    }
    this.#position += length;
    return start;
  }
}
