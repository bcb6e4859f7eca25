import { crc32 } from "node:zlib";

/** Bytes of a file that have a checksum of their own, so that a part of it can be checked without the rest. */
export const pieceBytes = 1024 * 1024;
/** Of a checksum in text. */
const sumChars = 8;

/** CRC-32 of each piece of a file, in hexadecimal, one after the other; made of whatever parts the bytes come in. */
export class PieceSums {
  #sums = "";
  #sum = 0;
  #filled = 0;

  update(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      const part = bytes.subarray(done, done + pieceBytes - this.#filled);
      this.#sum = crc32(part, this.#sum);
      this.#filled += part.length;
      done += part.length;
      if (this.#filled === pieceBytes) this.#end();
    }
  }

  digest(): string {
    if (this.#filled > 0) this.#end();
    return this.#sums;
  }

  #end(): void {
    this.#sums += textOf(this.#sum);
    [this.#sum, this.#filled] = [0, 0];
  }
}

const textOf = (sum: number): string => sum.toString(16).padStart(sumChars, "0");

/** Whether a text may be the checksums of a file of this size. */
export const arePieceSums = (text: string, sizeBytes: number): boolean =>
  text.length === Math.ceil(sizeBytes / pieceBytes) * sumChars && /^[0-9a-f]*$/.test(text);

/** Whether bytes are those of a piece. */
export const isPiece = (sums: string, piece: number, bytes: Uint8Array): boolean =>
  sums.slice(piece * sumChars, (piece + 1) * sumChars) === textOf(crc32(bytes));
