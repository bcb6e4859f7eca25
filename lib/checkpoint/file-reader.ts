import type { FileHandle } from "node:fs/promises";
import { LockstepError } from "#lib/core/errors/index";
import { parseJson } from "#lib/core/json-text";
import { openRegularFile } from "#lib/core/regular-file";

/** One `read` asks for at most this many bytes: Linux serves no more than 2 GiB - 4 KiB at once. */
const maxReadBytes = 1024 * 1024 * 1024;

/** Exact ranges of a file, wherever it is. */
export interface ByteReader {
  /** Its name for a person. */
  readonly file: string;
  readonly sizeBytes: number;
  /** Fills `into` from byte `offset` on. @throws E_FILE_TRUNCATED */
  readInto(into: Uint8Array, offset: number): Promise<void>;
  /** A fresh buffer with the bytes [offset, offset + length); the caller has checked the length. */
  read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
  close(): Promise<void>;
}

/** Exact ranges of a regular file. `sizeBytes` is the size when it was opened. */
export class FileReader implements ByteReader {
  readonly file: string;
  readonly sizeBytes: number;
  readonly #handle: FileHandle;

  private constructor(file: string, handle: FileHandle, sizeBytes: number) {
    this.file = file;
    this.#handle = handle;
    this.sizeBytes = sizeBytes;
  }

  /** Opens `file`; `what` names it in errors. @throws E_FILE_NOT_FOUND, E_FILE_UNREADABLE */
  static async open(file: string, what: string): Promise<FileReader> {
    const { handle, sizeBytes } = await openRegularFile(file, what);
    return new FileReader(file, handle, sizeBytes);
  }

  /** Fills `into` from byte `offset` on, or throws E_FILE_TRUNCATED. */
  async readInto(into: Uint8Array, offset: number): Promise<void> {
    let done = 0;
    while (done < into.byteLength) {
      const length = Math.min(into.byteLength - done, maxReadBytes);
      const { bytesRead } = await this.#handle.read(into, done, length, offset + done);
      if (bytesRead === 0) {
        throw new LockstepError("E_FILE_TRUNCATED", {
          file: this.file,
          offset,
          wantedBytes: into.byteLength,
          gotBytes: done,
        });
      }
      done += bytesRead;
    }
  }

  /** A fresh buffer with the bytes [offset, offset + length); the caller has checked the length. */
  async read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    if (offset + length > this.sizeBytes) {
      throw new LockstepError("E_FILE_TRUNCATED", {
        file: this.file,
        offset,
        wantedBytes: length,
        gotBytes: Math.max(0, this.sizeBytes - offset),
      });
    }
    const bytes = new Uint8Array(length);
    await this.readInto(bytes, offset);
    return bytes;
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

/** Reads a small UTF-8 JSON file whole, refusing more than `limitBytes`. */
export async function readJsonFile(
  file: string,
  what: string,
  limitBytes: number,
  normalise: (text: string) => string = (text) => text,
): Promise<unknown> {
  const reader = await FileReader.open(file, what);
  try {
    if (reader.sizeBytes > limitBytes) {
      throw new LockstepError("E_FILE_TOO_LARGE", {
        file,
        actualBytes: reader.sizeBytes,
        limitBytes,
      });
    }
    const bytes = await reader.read(0, reader.sizeBytes);
    try {
      return parseJson(normalise(new TextDecoder("utf-8", { fatal: true }).decode(bytes)));
    } catch (cause) {
      throw new LockstepError(
        "E_JSON_FILE",
        { file, problem: cause instanceof Error ? cause.message : String(cause) },
        { cause },
      );
    }
  } finally {
    await reader.close();
  }
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
