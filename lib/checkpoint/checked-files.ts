import { createHash } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { LockstepError } from "#lib/core/errors/index";
import type { SavedFile } from "#lib/core/saved-files";
import { readChecksums, sha256, sumsOf, writeChecksums } from "./checksums.js";
import { type ByteReader, isRecord, readJsonFile } from "./file-reader.js";
import { maxConfigBytes } from "./limits.js";
import { arePieceSums, isPiece, pieceBytes } from "./piece-sums.js";
import type { StateFiles } from "./state-files.js";

/** Beside the Hugging Face files of a checkpoint: what only Lockstep needs to go on. */
export const ownFolder = "lockstep";
/** SHA-256 of every other file of the checkpoint. */
export const checksumsFile = `${ownFolder}/checksums.json`;
/** Checksums of pieces of those files that a run reads in ranges when it goes on. */
export const piecesFile = `${ownFolder}/pieces.json`;

const format = "lockstep-pieces-1";
/** What is read at once of whole pieces, and of a file that is hashed as a whole. */
const maxRunBytes = 64 * pieceBytes;

const isReadInRanges = (file: string): boolean =>
  file.startsWith(`${ownFolder}/optimizer-`) && file.endsWith(".safetensors");

/**
 * Writes both lists of checksums into a checkpoint.
 *
 * @param known files whose sums are known, by path: they need not be there, another place may have them
 */
export async function writeCheckpointSums(
  directory: string,
  known?: ReadonlyMap<string, SavedFile>,
): Promise<void> {
  const sums = await sumsOf(directory, known);
  const files = [...sums].filter(([file, { pieces }]) => isReadInRanges(file) && pieces !== "");
  if (files.length > 0) {
    const pieces = Object.fromEntries(
      files.map(([file, { sizeBytes, pieces: crc32 }]) => [file, { sizeBytes, crc32 }]),
    );
    const list = { format, pieceBytes, files: pieces };
    await writeFile(join(directory, piecesFile), `${JSON.stringify(list, null, 2)}\n`);
  }
  const all = [...sums].map(([file, sum]) => [join(directory, file), sum] as const);
  await writeChecksums(directory, checksumsFile, new Map(all));
}

/** What the files of a checkpoint are compared with. */
interface CheckpointSums {
  /** SHA-256 by file. */
  readonly sums: ReadonlyMap<string, string>;
  /** Of files that are read in ranges; those of earlier versions have none. */
  readonly pieces: ReadonlyMap<string, { readonly sizeBytes: number; readonly crc32: string }>;
}

/**
 * Reads both lists, of a directory that holds at least them.
 *
 * @param directory of which a person is told
 * @returns undefined where there is none. @throws E_CHECKPOINT_DAMAGED
 */
export async function readCheckpointSums(
  directory: string,
  files: string,
): Promise<CheckpointSums | undefined> {
  const sums = await readChecksums(files, checksumsFile);
  const expected = sums?.get(piecesFile);
  if (sums === undefined || expected === undefined) return sums && { sums, pieces: new Map() };
  const damaged = (problem: string) =>
    new LockstepError("E_CHECKPOINT_DAMAGED", { directory, file: piecesFile, problem });
  const path = join(files, piecesFile);
  if ((await sha256(path).catch(() => "")) !== expected) throw damaged("has a wrong checksum");
  const parsed = await readJsonFile(path, "list of checksums", maxConfigBytes);
  const listed = isRecord(parsed) && parsed["format"] === format ? parsed["files"] : undefined;
  if (!isRecord(listed) || !isRecord(parsed) || parsed["pieceBytes"] !== pieceBytes) {
    throw damaged(`is no list of the format ${format}`);
  }
  const pieces = new Map<string, { readonly sizeBytes: number; readonly crc32: string }>();
  for (const [file, value] of Object.entries(listed)) {
    const { sizeBytes, crc32 } = isRecord(value) ? value : {};
    const isWhole =
      typeof sizeBytes === "number" &&
      Number.isSafeInteger(sizeBytes) &&
      typeof crc32 === "string" &&
      arePieceSums(crc32, sizeBytes);
    if (!isWhole) throw damaged(`has no checksums of ${file}`);
    pieces.set(file, { sizeBytes, crc32 });
  }
  return { sums, pieces };
}

/**
 * Files of a checkpoint's own folder, of which what is read is compared with its checksums: piece by piece, or, of a
 * checkpoint of an earlier version, as a whole before its first tensor is read.
 *
 * @param directory of which a person is told
 * @param areWhole whether all files have been compared as a whole
 */
export const checkedFiles = (
  files: StateFiles,
  { sums, pieces }: CheckpointSums,
  directory: string,
  { areWhole = false }: { readonly areWhole?: boolean } = {},
): StateFiles => ({
  names: async () => files.names(),
  open: async (name) => {
    const file = `${ownFolder}/${name}`;
    const damaged = (problem: string) =>
      new LockstepError("E_CHECKPOINT_DAMAGED", { directory, file, problem });
    const reader = await files.open(name);
    const [sum, ofPieces] = [sums.get(file), pieces.get(file)];
    if (ofPieces !== undefined && ofPieces.sizeBytes === reader.sizeBytes) {
      return new CheckedReader(reader, ofPieces.crc32, damaged);
    }
    if (ofPieces === undefined && areWhole) return reader;
    if (ofPieces === undefined && sum !== undefined) return new HashedReader(reader, sum, damaged);
    await reader.close();
    if (ofPieces === undefined) throw damaged(`has no checksum in ${checksumsFile}`);
    throw damaged(`has ${reader.sizeBytes} bytes, not ${ofPieces.sizeBytes}`);
  },
});

type Damaged = (problem: string) => LockstepError;

/** Compares each piece that it reads something of. */
class CheckedReader implements ByteReader {
  readonly file: string;
  readonly sizeBytes: number;
  readonly #reader: ByteReader;
  readonly #sums: string;
  readonly #damaged: Damaged;
  /** The last piece that was read in part: the next range begins in it. */
  #last: { readonly piece: number; readonly bytes: Uint8Array } | undefined;

  constructor(reader: ByteReader, sums: string, damaged: Damaged) {
    this.file = reader.file;
    this.sizeBytes = reader.sizeBytes;
    this.#reader = reader;
    this.#sums = sums;
    this.#damaged = damaged;
  }

  async readInto(into: Uint8Array, offset: number): Promise<void> {
    for (let done = 0; done < into.length; ) {
      const at = offset + done;
      const leftBytes = into.length - done;
      const isAtEnd = at + leftBytes >= this.sizeBytes;
      const wholeBytes =
        at % pieceBytes > 0
          ? 0
          : Math.min(isAtEnd ? leftBytes : leftBytes - (leftBytes % pieceBytes), maxRunBytes);
      if (wholeBytes > 0) {
        const run = into.subarray(done, done + wholeBytes);
        await this.#reader.readInto(run, at);
        for (let from = 0; from < run.length; from += pieceBytes) {
          this.#check((at + from) / pieceBytes, run.subarray(from, from + pieceBytes));
        }
        done += wholeBytes;
        continue;
      }
      const piece = Math.floor(at / pieceBytes);
      const from = at % pieceBytes;
      const part = (await this.#piece(piece)).subarray(from, from + leftBytes);
      if (part.length === 0) {
        const details = { file: this.file, offset, wantedBytes: into.length, gotBytes: done };
        throw new LockstepError("E_FILE_TRUNCATED", details);
      }
      into.set(part, done);
      done += part.length;
    }
  }

  async read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    if (offset + length > this.sizeBytes) return this.#reader.read(offset, length);
    const bytes = new Uint8Array(length);
    await this.readInto(bytes, offset);
    return bytes;
  }

  async close(): Promise<void> {
    await this.#reader.close();
  }

  async #piece(piece: number): Promise<Uint8Array> {
    if (this.#last?.piece === piece) return this.#last.bytes;
    const start = piece * pieceBytes;
    const bytes = new Uint8Array(Math.max(0, Math.min(pieceBytes, this.sizeBytes - start)));
    await this.#reader.readInto(bytes, start);
    if (bytes.length > 0) this.#check(piece, bytes);
    this.#last = { piece, bytes };
    return bytes;
  }

  #check(piece: number, bytes: Uint8Array): void {
    if (isPiece(this.#sums, piece, bytes)) return;
    const start = piece * pieceBytes;
    throw this.#damaged(
      `has a wrong checksum of its bytes ${start} to ${start + bytes.length - 1}`,
    );
  }
}

/** Compares all of a file before the first range of it is given; what describes the file is read before. */
class HashedReader implements ByteReader {
  readonly file: string;
  readonly sizeBytes: number;
  readonly #reader: ByteReader;
  readonly #sum: string;
  readonly #damaged: Damaged;
  #checked: Promise<void> | undefined;

  constructor(reader: ByteReader, sum: string, damaged: Damaged) {
    this.file = reader.file;
    this.sizeBytes = reader.sizeBytes;
    this.#reader = reader;
    this.#sum = sum;
    this.#damaged = damaged;
  }

  async readInto(into: Uint8Array, offset: number): Promise<void> {
    await (this.#checked ??= this.#check());
    await this.#reader.readInto(into, offset);
  }

  async read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    return this.#reader.read(offset, length);
  }

  async close(): Promise<void> {
    await this.#reader.close();
  }

  async #check(): Promise<void> {
    const hash = createHash("sha256");
    const buffer = new Uint8Array(Math.min(maxRunBytes, this.sizeBytes));
    for (let done = 0; done < this.sizeBytes; done += buffer.length) {
      const part = buffer.subarray(0, Math.min(buffer.length, this.sizeBytes - done));
      await this.#reader.readInto(part, done);
      // A few milliseconds of work between two turns of the event loop.
      for (let from = 0; from < part.length; from += pieceBytes) {
        hash.update(part.subarray(from, from + pieceBytes));
        await new Promise((resolve) => setImmediate(resolve));
      }
    }
    if (hash.digest("hex") !== this.#sum) throw this.#damaged("has a wrong checksum");
  }
}
