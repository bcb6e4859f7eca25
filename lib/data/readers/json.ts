import { LockstepError } from "#lib/core/errors/index";
import type { BadExamples } from "#lib/data/bad-examples";
import { decodeUtf8 } from "#lib/data/files";
import { parseFields } from "./jsonl.js";
import { readChunks, ExampleBytes } from "./lines.js";
import type { RawExample } from "./raw-example.js";

const quote = 0x22;
const backslash = 0x5c;
const newline = 0x0a;
const comma = 0x2c;
const openArray = 0x5b;
const closeArray = 0x5d;
const openers = new Set([openArray, 0x7b]);
const closers = new Set([closeArray, 0x7d]);
const byteOrderMark = [0xef, 0xbb, 0xbf];
const isBlank = (byte: number): boolean => byte === 0x20 || (byte >= 0x09 && byte <= 0x0d);

/**
 * The examples of a JSON file: the objects of one array, or objects one after another over any number of
 * lines. Read as a stream: an example is held, never the array. A comma after the last example is passed over, a
 * doubled or a missing one is an error.
 *
 * stream-json does not fit: its errors have no place and end the file, where a bad example can be left out; it
 * replaces bytes that are not UTF-8, and holds a string of any length.
 *
 * @throws E_FILE_NOT_FOUND, E_DATA_TOO_LARGE, E_DATA_INVALID_JSON where the array does not end; as bad
 *   examples E_DATA_INVALID_UTF8, E_DATA_INVALID_JSON, E_DATA_ROW_FORMAT
 */
export async function* readJson(
  file: string,
  badExamples: BadExamples,
): AsyncGenerator<RawExample> {
  const row = new ExampleBytes(file);
  const here = { line: 1, column: 0, offset: 0 };
  let start = { ...here };
  let isArray: boolean | undefined;
  let hasEnded = false;
  /** What may come next in an array: an example at its start, a comma behind an example. */
  let awaits: "row" | "comma" | "row after a comma" = "row";
  let depth = 0;
  let inString = false;
  let isEscaped = false;

  const parse = (): RawExample | undefined => {
    const place = { file, line: start.line, column: start.column };
    try {
      const text = decodeUtf8(row.take(), { file, fileOffset: start.offset, line: start.line });
      return { place: `${file}:${start.line}`, fields: parseFields(text, place) };
    } catch (error) {
      badExamples.reject(error);
      return undefined;
    }
  };
  const wrong = (problem: string): LockstepError =>
    new LockstepError("E_DATA_INVALID_JSON", {
      file,
      line: here.line,
      column: here.column,
      problem,
    });

  for await (const chunk of readChunks(file)) {
    const from = here.offset === 0 && byteOrderMark.every((byte, i) => chunk[i] === byte) ? 3 : 0;
    let rowStart = depth > 0 ? from : -1;
    for (let i = from; i < chunk.length; i++) {
      const byte = chunk[i] ?? 0;
      if (byte === newline) {
        here.line++;
        here.column = 0;
      } else here.column++;
      if (inString) {
        if (isEscaped) isEscaped = false;
        else if (byte === backslash) isEscaped = true;
        else if (byte === quote) inString = false;
      } else if (depth > 0) {
        if (byte === quote) inString = true;
        else if (openers.has(byte)) depth++;
        else if (closers.has(byte) && --depth === 0) {
          row.add(chunk.subarray(rowStart, i + 1));
          rowStart = -1;
          awaits = "comma";
          const parsed = parse();
          if (parsed !== undefined) yield parsed;
        }
      } else if (isBlank(byte)) {
        continue;
      } else if (hasEnded) {
        throw wrong("found more text after the end of the array");
      } else if (isArray === undefined && byte === openArray) {
        isArray = true;
      } else if (isArray === true && byte === closeArray) {
        hasEnded = true;
      } else if (openers.has(byte) && !(isArray === true && awaits === "comma")) {
        isArray ??= false;
        depth = 1;
        rowStart = i;
        start = { line: here.line, column: here.column, offset: here.offset + i };
        row.line = here.line;
      } else if (byte === comma && isArray === true && awaits === "comma") {
        awaits = "row after a comma";
      } else {
        const expected = isArray === true && awaits === "comma" ? '"," or "]"' : "a row";
        const found = JSON.stringify(String.fromCharCode(byte));
        throw wrong(`found ${found} where ${expected} was expected`);
      }
    }
    if (rowStart >= 0) row.add(chunk.subarray(rowStart));
    here.offset += chunk.length;
  }
  if (depth > 0 || (isArray === true && !hasEnded)) {
    const what = depth > 0 ? `the row of line ${start.line}` : "the array";
    throw wrong(`found the end of the file inside ${what}`);
  }
}
