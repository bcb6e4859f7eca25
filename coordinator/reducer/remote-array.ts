import type { DistantArray } from "#lib/core/shard-arrays";
import { maxPieceBytes } from "#lib/wire/reducer-commands";

/** Bytes of an array that another process has. */
type ReadBytes = (offset: number, numBytes: number) => Promise<Uint8Array>;

const elementBytes = 4;
const pieceElements = maxPieceBytes / elementBytes;

/** An array of a shard in another process; a piece of it is fetched while the one before is used. */
export class RemoteArray implements DistantArray {
  readonly length: number;
  readonly #read: ReadBytes;
  readonly #start: number;

  /** @param start element of the whole array at which this begins */
  constructor(read: ReadBytes, start: number, length: number) {
    this.#read = read;
    this.#start = start;
    this.length = length;
  }

  get byteLength(): number {
    return this.length * elementBytes;
  }

  subarray(start: number, end: number): RemoteArray {
    const first = Math.min(start, this.length);
    const length = Math.max(0, Math.min(end, this.length) - first);
    return new RemoteArray(this.#read, this.#start + first, length);
  }

  async *pieces(): AsyncGenerator<Float32Array<ArrayBuffer>> {
    let next = this.#piece(0);
    for (let at = 0; at < this.length; at += pieceElements) {
      const piece = await next;
      next = this.#piece(at + pieceElements);
      // Whoever stops here does not wait for it.
      next.catch(() => {});
      yield piece;
    }
  }

  async #piece(at: number): Promise<Float32Array<ArrayBuffer>> {
    const numElements = Math.min(pieceElements, this.length - at);
    if (numElements <= 0) return new Float32Array();
    const offset = (this.#start + at) * elementBytes;
    const bytes = await this.#read(offset, numElements * elementBytes);
    // A message's bytes may begin anywhere.
    return new Float32Array(Uint8Array.from(bytes).buffer);
  }
}
