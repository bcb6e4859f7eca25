import { createGunzip } from "node:zlib";
import { LockstepError } from "#lib/core/errors/index";
import { openRegularFile } from "#lib/core/regular-file";
import { maxExampleBytes } from "./raw-example.js";

const chunkBytes = 2 ** 20;

/**
 * A file's bytes in chunks, decompressed where its name ends in .gz: those that it has when it is opened.
 *
 * @throws E_FILE_NOT_FOUND, E_FILE_UNREADABLE, E_DATA_GZIP where the compression is broken
 */
export async function* readChunks(file: string): AsyncGenerator<Buffer> {
  const { handle, sizeBytes } = await openRegularFile(file, "data file");
  if (sizeBytes === 0) return handle.close();
  const source = handle.createReadStream({
    ...{ highWaterMark: chunkBytes, start: 0, end: sizeBytes - 1 },
  });
  let stream: AsyncIterable<Buffer> = source;
  if (file.toLowerCase().endsWith(".gz")) {
    const gunzip = createGunzip({ chunkSize: chunkBytes });
    source.on("error", (error) => gunzip.destroy(error));
    stream = source.pipe(gunzip);
  }
  try {
    yield* stream;
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "";
    if (code.startsWith("Z_")) {
      throw new LockstepError("E_DATA_GZIP", { file, problem: String(error) }, { cause: error });
    }
    throw error;
  } finally {
    source.destroy();
  }
}

/** Collects the bytes of one example from the chunks it spans. @throws E_DATA_TOO_LARGE */
export class ExampleBytes {
  readonly #file: string;
  #parts: Buffer[] = [];
  length = 0;
  /** Where the example begins. */
  line = 1;

  constructor(file: string) {
    this.#file = file;
  }

  add(part: Buffer): void {
    this.length += part.length;
    if (this.length > maxExampleBytes) {
      const sizes = { sizeBytes: this.length, limitBytes: maxExampleBytes };
      const what = `row of line ${this.line}`;
      throw new LockstepError("E_DATA_TOO_LARGE", { file: this.#file, what, ...sizes });
    }
    this.#parts.push(part);
  }

  take(): Buffer {
    const [only] = this.#parts;
    const whole =
      this.#parts.length === 1 && only !== undefined ? only : Buffer.concat(this.#parts);
    this.#parts = [];
    this.length = 0;
    return whole;
  }
}

interface Line {
  readonly bytes: Buffer;
  /** Of the line's first byte in the file (in the decompressed bytes of a .gz file). */
  readonly fileOffset: number;
}

/** Lines without their end. */
export async function* splitLines(file: string): AsyncGenerator<Line> {
  const newline = 0x0a;
  const pending = new ExampleBytes(file);
  let fileOffset = 0;
  for await (const chunk of readChunks(file)) {
    let start = 0;
    for (let end = chunk.indexOf(newline); end >= 0; end = chunk.indexOf(newline, start)) {
      pending.add(chunk.subarray(start, end));
      const { length } = pending;
      yield { bytes: pending.take(), fileOffset };
      pending.line++;
      fileOffset += length + 1;
      start = end + 1;
    }
    if (start < chunk.length) pending.add(chunk.subarray(start));
  }
  if (pending.length > 0) yield { bytes: pending.take(), fileOffset };
}
