import { isUtf8 } from "node:buffer";
import { LockstepError } from "#lib/core/errors/index";
import { parseJson } from "#lib/core/json-text";
import { openRegularFile, readAll } from "#lib/core/regular-file";

const MiB = 2 ** 20;
/** Whole documents are held as one string; V8 ends at 512 Mi characters. */
export const maxDocumentBytes = 256 * MiB;
/** The largest public tokenizers take about 35 MB. */
export const maxTokenizerFileBytes = 256 * MiB;
/** Configuration files and templates of models are a few KiB; vocabularies inside some reach a MiB. */
export const maxModelTextBytes = 16 * MiB;

export function isMissingFile(error: unknown): boolean {
  return (
    error instanceof Error &&
    "code" in error &&
    (error.code === "ENOENT" || error.code === "ENOTDIR")
  );
}

/**
 * Reads a UTF-8 file whole, its byte order mark removed.
 *
 * @throws E_FILE_NOT_FOUND, E_FILE_UNREADABLE, E_DATA_TOO_LARGE, E_DATA_INVALID_UTF8
 */
export async function readTextFile(
  file: string,
  options: { what: string; limitBytes: number },
): Promise<string> {
  const { what, limitBytes } = options;
  const opened = await openRegularFile(file, what);
  try {
    const { sizeBytes } = opened;
    if (sizeBytes > limitBytes) {
      throw new LockstepError("E_DATA_TOO_LARGE", { file, what, sizeBytes, limitBytes });
    }
    return decodeUtf8(await readAll(opened), { file, fileOffset: 0 });
  } finally {
    await opened.handle.close();
  }
}

/**
 * Reads a JSON object from a file of a model, or nothing where the file does not exist.
 *
 * @throws E_TOKENIZER_INVALID where it is not a JSON object
 */
export async function readOptionalJson(
  file: string,
): Promise<Readonly<Record<string, unknown>> | undefined> {
  let text: string;
  try {
    text = await readTextFile(file, { what: "model file", limitBytes: maxModelTextBytes });
  } catch (error) {
    if (error instanceof LockstepError && error.code === "E_FILE_NOT_FOUND") return undefined;
    throw error;
  }
  let value: unknown;
  try {
    value = parseJson(text);
  } catch (cause) {
    throw new LockstepError(
      "E_TOKENIZER_INVALID",
      { file, problem: `it is not JSON (${String(cause)})` },
      { cause },
    );
  }
  if (!isRecord(value)) {
    throw new LockstepError("E_TOKENIZER_INVALID", { file, problem: "it is not a JSON object" });
  }
  return value;
}

export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * @param place where the bytes start in the file: the message names an offset in the file, and a line if known
 * @throws E_DATA_INVALID_UTF8
 */
export function decodeUtf8(
  bytes: Uint8Array,
  place: { file: string; fileOffset: number; line?: number },
): string {
  try {
    const text = decoder.decode(bytes);
    return place.fileOffset === 0 && text.startsWith("\uFEFF") ? text.slice(1) : text;
  } catch (cause) {
    const byteOffset = place.fileOffset + firstInvalidByte(bytes);
    const line = place.line === undefined ? {} : { line: place.line };
    const facts = { file: place.file, ...line, byteOffset, encoding: likelyEncoding(bytes) };
    throw new LockstepError("E_DATA_INVALID_UTF8", facts, { cause });
  }
}

/** What text that is no UTF-8 may be, by its byte order mark or its zeros. */
function likelyEncoding(bytes: Uint8Array): string {
  const [first, second] = bytes;
  const hasMark = (first === 0xff && second === 0xfe) || (first === 0xfe && second === 0xff);
  return hasMark || bytes.subarray(0, 256).includes(0) ? "UTF-16" : "LATIN1";
}

/** Length of the longest prefix that holds only whole, valid characters. */
export function firstInvalidByte(bytes: Uint8Array): number {
  const isBoundary = (position: number): boolean =>
    position >= bytes.length || ((bytes[position] ?? 0) & 0xc0) !== 0x80;
  let valid = 0;
  let invalid = bytes.length;
  // Prefixes that end at a character boundary are valid up to the first wrong byte, and invalid beyond.
  while (invalid - valid > 4) {
    let middle = valid + Math.floor((invalid - valid) / 2);
    while (!isBoundary(middle) && middle < invalid) middle++;
    if (middle >= invalid) break;
    if (isUtf8(bytes.subarray(0, middle))) valid = middle;
    else invalid = middle;
  }
  let end = valid;
  while (end < bytes.length) {
    let next = end + 1;
    while (!isBoundary(next)) next++;
    if (!isUtf8(bytes.subarray(end, next))) return end;
    end = next;
  }
  return end;
}
