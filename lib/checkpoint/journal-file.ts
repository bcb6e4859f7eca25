import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { crc32 } from "node:zlib";
import { LockstepError } from "#lib/core/errors/index";
import { parseJson } from "#lib/core/json-text";
import { readRegularFile } from "#lib/core/regular-file";
import { maxJournalBytes } from "./limits.js";
import { assertWritable } from "./write-guard.js";

/*
 * A journal is a file that is only appended to. It begins with `fileMagic`; each record is a header of 20 bytes,
 * little-endian: "LSJr", the record's number from 0, the payload's bytes, CRC-32 of the payload, CRC-32 of the 16
 * bytes before. A payload is the length of a JSON text in 4 bytes, the text, and float32 numbers that it names.
 */

const fileMagic = Buffer.from("LSJRNL1\n");
const recordMagic = 0x724a534c;
const headerBytes = 20;

/** JSON's numbers are exact but for these. */
const specialNumbers: ReadonlyMap<string, number> = new Map([
  ["NaN", Number.NaN],
  ["Infinity", Number.POSITIVE_INFINITY],
  ["-Infinity", Number.NEGATIVE_INFINITY],
  ["-0", -0],
]);
const specialKey = "$number";

/** What is written at once: a value that JSON can say, and numbers beside it. */
export interface JournalRecord {
  readonly value: unknown;
  readonly arrays: Readonly<Record<string, Float32Array>>;
}

interface JournalContents {
  readonly records: readonly JournalRecord[];
  /** Of the file up to the end of the last whole record. */
  readonly wholeBytes: number;
}

/**
 * The whole records of a journal. One that was cut off, as by a death in mid-write, is not among them.
 *
 * @throws E_JOURNAL_DAMAGED where something else than the end of the file is missing or changed; E_FILE_NOT_FOUND,
 *   E_FILE_UNREADABLE, E_FILE_TOO_LARGE
 */
export async function readJournal(file: string): Promise<JournalContents> {
  const bytes = await readRegularFile(file, { what: "journal", limitBytes: maxJournalBytes });
  if (!bytes.subarray(0, fileMagic.length).equals(fileMagic)) {
    // Cut off before anything was in it, or none at all.
    const isCut = fileMagic.subarray(0, bytes.length).equals(bytes);
    if (isCut) return { records: [], wholeBytes: 0 };
    throw damaged(file, 0, "it does not begin as a journal does");
  }
  const records: JournalRecord[] = [];
  let at = fileMagic.length;
  while (at < bytes.length) {
    const payload = payloadAt(bytes, at, records.length);
    if (payload === undefined) {
      if (hasLaterRecord(bytes, at + 1, records.length)) {
        throw damaged(file, at, `record ${records.length} is changed, and there are later ones`);
      }
      break;
    }
    records.push(decode(payload, file, at));
    at += headerBytes + payload.length;
  }
  return { records, wholeBytes: at };
}

/** @returns undefined where no whole record with this number is there */
function payloadAt(bytes: Buffer, at: number, number: number): Buffer | undefined {
  if (!isHeaderAt(bytes, at) || bytes.readUInt32LE(at + 4) !== number) return undefined;
  const start = at + headerBytes;
  const end = start + bytes.readUInt32LE(at + 8);
  if (end > bytes.length) return undefined;
  const payload = bytes.subarray(start, end);
  return crc32(payload) === bytes.readUInt32LE(at + 12) ? payload : undefined;
}

const isHeaderAt = (bytes: Buffer, at: number): boolean =>
  at + headerBytes <= bytes.length &&
  bytes.readUInt32LE(at) === recordMagic &&
  bytes.readUInt32LE(at + 16) === crc32(bytes.subarray(at, at + 16));

/** Whether a header of a record after `number` is behind a place: what is there was not cut off. */
function hasLaterRecord(bytes: Buffer, from: number, number: number): boolean {
  const magic = Buffer.alloc(4);
  magic.writeUInt32LE(recordMagic);
  for (let at = bytes.indexOf(magic, from); at >= 0; at = bytes.indexOf(magic, at + 1)) {
    if (isHeaderAt(bytes, at) && bytes.readUInt32LE(at + 4) > number) return true;
  }
  return false;
}

function decode(payload: Buffer, file: string, at: number): JournalRecord {
  const refuse = (problem: string): LockstepError => damaged(file, at, problem);
  if (payload.length < 4) throw refuse("a record has no text");
  const textEnd = 4 + payload.readUInt32LE(0);
  if (textEnd > payload.length) throw refuse("a record's text is longer than the record");
  let parsed: unknown;
  try {
    parsed = parseJson(payload.toString("utf8", 4, textEnd));
  } catch (error) {
    throw refuse(`a record's text is no JSON: ${(error as Error).message}`);
  }
  const { value, arrays } = (parsed ?? {}) as Readonly<Record<string, unknown>>;
  if (!Array.isArray(arrays)) throw refuse("a record does not name its numbers");
  let next = textEnd;
  const read = (arrays as unknown[]).map((entry): [string, Float32Array] => {
    const [name, length] = Array.isArray(entry) ? (entry as unknown[]) : [];
    const isLength = Number.isSafeInteger(length) && (length as number) >= 0;
    if (typeof name !== "string" || !isLength) throw refuse("a record's numbers have no name");
    const numBytes = 4 * (length as number);
    if (next + numBytes > payload.length) throw refuse("a record names more numbers than it has");
    const values = new Float32Array(length as number);
    Buffer.from(values.buffer).set(payload.subarray(next, next + numBytes));
    next += numBytes;
    return [name, values];
  });
  if (next !== payload.length) throw refuse("a record has more numbers than it names");
  return { value: exact(value), arrays: Object.fromEntries(read) };
}

/** With the numbers that JSON has no words for. */
function exact(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(exact);
  const entries = Object.entries(value);
  const [first] = entries;
  if (entries.length === 1 && first?.[0] === specialKey) {
    return specialNumbers.get(String(first[1])) ?? null;
  }
  return Object.fromEntries(entries.map(([key, each]) => [key, exact(each)]));
}

function encode({ value, arrays }: JournalRecord, number: number): Buffer {
  const names = Object.entries(arrays).map(([name, values]) => [name, values.length]);
  const text = JSON.stringify({ value, arrays: names }, (_key, each: unknown) => {
    if (typeof each !== "number" || (Number.isFinite(each) && !Object.is(each, -0))) return each;
    return { [specialKey]: Object.is(each, -0) ? "-0" : String(each) };
  });
  const length = Buffer.alloc(4);
  length.writeUInt32LE(Buffer.byteLength(text));
  const numbers = Object.values(arrays).map((values) =>
    Buffer.from(values.buffer, values.byteOffset, values.byteLength),
  );
  const payload = Buffer.concat([length, Buffer.from(text), ...numbers]);
  const header = Buffer.alloc(headerBytes);
  header.writeUInt32LE(recordMagic, 0);
  header.writeUInt32LE(number, 4);
  header.writeUInt32LE(payload.length, 8);
  header.writeUInt32LE(crc32(payload), 12);
  header.writeUInt32LE(crc32(header.subarray(0, 16)), 16);
  return Buffer.concat([header, payload]);
}

/** A journal that is being written; one call at a time. */
export class JournalFile {
  readonly #file: string;
  readonly #handle: FileHandle;
  #numRecords = 1;
  #numBytes: number;

  private constructor(file: string, handle: FileHandle, numBytes: number) {
    this.#file = file;
    this.#handle = handle;
    this.#numBytes = numBytes;
  }

  /**
   * Puts a journal with one record in the place of what the file was. A process that still writes to the file of
   * before writes to one that has no name any more.
   */
  static async create(file: string, first: JournalRecord): Promise<JournalFile> {
    const bytes = Buffer.concat([fileMagic, encode(first, 0)]);
    const temporary = `${file}.new`;
    assertWritable(file);
    const handle = await open(temporary, "w");
    try {
      await handle.writeFile(bytes);
      await handle.sync();
      assertWritable(file);
      await rename(temporary, file);
      await syncDirectory(dirname(file));
      return new JournalFile(file, handle, bytes.length);
    } catch (error) {
      await handle.close();
      await rm(temporary, { force: true }).catch(() => {});
      throw error;
    }
  }

  get numBytes(): number {
    return this.#numBytes;
  }

  /** Returns when the record is on the disk. After an error the file may end with a part of it. */
  async append(record: JournalRecord): Promise<void> {
    const bytes = encode(record, this.#numRecords);
    assertWritable(this.#file);
    await this.#handle.appendFile(bytes);
    await this.#handle.datasync();
    this.#numRecords += 1;
    this.#numBytes += bytes.length;
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

const damaged = (file: string, offset: number, problem: string): LockstepError =>
  new LockstepError("E_JOURNAL_DAMAGED", { file, offset, problem });
