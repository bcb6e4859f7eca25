import { createReadStream } from "node:fs";
import { LockstepError } from "#lib/core/errors/index";
import { cleanText, type Document } from "#lib/data/documents";
import { decodeUtf8, isMissingFile, isRecord } from "#lib/data/files";
import { findJsonError } from "./json-error.js";

/** A row is one document; this holds a long book and bounds the memory of a file without line ends. */
export const maxRowBytes = 64 * 2 ** 20;

/**
 * The rows `{"text": "..."}` of a JSON Lines file, read as a stream; blank lines are skipped.
 *
 * @throws E_FILE_NOT_FOUND, E_DATA_TOO_LARGE, E_DATA_INVALID_UTF8, E_DATA_INVALID_JSON, E_DATA_ROW
 */
export async function* readJsonLines(
  file: string,
  { textField = "text" }: { textField?: string } = {},
): AsyncGenerator<Document> {
  let line = 0;
  for await (const { bytes, fileOffset } of splitLines(file)) {
    line++;
    const text = decodeUtf8(bytes, { file, fileOffset });
    if (text.trim() === "") continue;
    yield { id: `${file}:${line}`, text: cleanText(rowText(text, { file, line, textField })) };
  }
}

function rowText(json: string, place: { file: string; line: number; textField: string }): string {
  const { file, line, textField } = place;
  let row: unknown;
  try {
    row = JSON.parse(json);
  } catch (cause) {
    // Node 20 names no position for most errors.
    const { index, problem } = findJsonError(json);
    const details = { file, line, column: index + 1, problem };
    throw new LockstepError("E_DATA_INVALID_JSON", details, { cause });
  }
  const wrong = (found: string): LockstepError =>
    new LockstepError("E_DATA_ROW", { file, line, field: textField, found });
  if (!isRecord(row)) throw wrong(`it is ${kindOf(row)}`);
  if (!Object.hasOwn(row, textField)) {
    throw wrong(`it has ${Object.keys(row).slice(0, 10).join(", ") || "no fields"}`);
  }
  const value = row[textField];
  if (typeof value !== "string") throw wrong(`that field is ${kindOf(value)}`);
  return value;
}

function kindOf(value: unknown): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "an array" : `of type ${typeof value}`;
}

/** Lines without their end, with the offset of their first byte in the file. */
async function* splitLines(
  file: string,
): AsyncGenerator<{ bytes: Uint8Array; fileOffset: number }> {
  const newline = 0x0a;
  let pending: Buffer[] = [];
  let pendingBytes = 0;
  let fileOffset = 0;
  const add = (part: Buffer): void => {
    pendingBytes += part.length;
    if (pendingBytes > maxRowBytes) {
      throw new LockstepError("E_DATA_TOO_LARGE", {
        file,
        what: "row",
        sizeBytes: pendingBytes,
        limitBytes: maxRowBytes,
      });
    }
    pending.push(part);
  };
  try {
    const chunks: AsyncIterable<Buffer> = createReadStream(file, { highWaterMark: 2 ** 20 });
    for await (const chunk of chunks) {
      let start = 0;
      for (let end = chunk.indexOf(newline); end >= 0; end = chunk.indexOf(newline, start)) {
        add(chunk.subarray(start, end));
        yield { bytes: Buffer.concat(pending), fileOffset };
        fileOffset += pendingBytes + 1;
        pending = [];
        pendingBytes = 0;
        start = end + 1;
      }
      if (start < chunk.length) add(chunk.subarray(start));
    }
  } catch (error) {
    if (isMissingFile(error)) {
      throw new LockstepError("E_FILE_NOT_FOUND", { file, what: "data file" });
    }
    throw error;
  }
  if (pendingBytes > 0) yield { bytes: Buffer.concat(pending), fileOffset };
}
