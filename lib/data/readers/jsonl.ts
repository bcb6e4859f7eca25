import { LockstepError } from "#lib/core/errors/index";
import type { BadExamples } from "#lib/data/bad-examples";
import { findJsonError } from "#lib/data/datasets/json-error";
import { decodeUtf8, isRecord } from "#lib/data/files";
import {
  atPlace,
  isJsonObject,
  losesInJavaScript,
  parseJsonData,
  plainNumber,
} from "#lib/data/json-data";
import { splitLines } from "./lines.js";
import { repeatedKey } from "./repeated-key.js";
import { kindOf, type RawExample } from "./raw-example.js";

/**
 * The examples of a JSON Lines file, one object a line; blank lines are skipped.
 *
 * @throws E_FILE_NOT_FOUND, E_DATA_TOO_LARGE; as bad examples E_DATA_INVALID_UTF8, E_DATA_INVALID_JSON, E_DATA_ROW_FORMAT
 */
export async function* readJsonLines(
  file: string,
  badExamples: BadExamples,
): AsyncGenerator<RawExample> {
  let line = 0;
  for await (const { bytes, fileOffset } of splitLines(file)) {
    line++;
    const start = { file, line, column: 1 };
    let fields: Readonly<Record<string, unknown>> | undefined;
    try {
      const text = decodeUtf8(bytes, { file, fileOffset, line });
      if (text.trim() !== "") fields = parseFields(text, start);
    } catch (error) {
      badExamples.reject(error);
    }
    if (fields !== undefined) yield { place: `${file}:${line}`, fields };
  }
}

/**
 * @param start where the text starts in its file; 1-based
 * @throws E_DATA_INVALID_JSON, E_DATA_ROW_FORMAT
 */
export function parseFields(
  text: string,
  start: { file: string; line: number; column: number },
): Readonly<Record<string, unknown>> {
  let row: unknown;
  try {
    row = JSON.parse(text);
  } catch (cause) {
    // Node 20 names no position for most errors.
    const { index, problem } = findJsonError(text);
    const before = text.slice(0, index).split("\n");
    const column = (before.at(-1)?.length ?? 0) + (before.length === 1 ? start.column : 1);
    const line = start.line + before.length - 1;
    throw new LockstepError(
      "E_DATA_INVALID_JSON",
      { file: start.file, line, column, problem },
      { cause },
    );
  }
  const place = `${start.file}:${start.line}`;
  const key = isRecord(row) ? repeatedKey(text) : undefined;
  if (isRecord(row) && key === undefined) return keepDigits(row, text, place);
  const problem =
    key === undefined
      ? `it is ${kindOf(row)}, not an object`
      : `it has the key ${JSON.stringify(key)} twice in one object`;
  throw new LockstepError("E_DATA_ROW_FORMAT", { place, format: "JSON", problem });
}

/** The example with what is nested in it as it was written, where JavaScript's objects would lose something. */
function keepDigits(
  row: Readonly<Record<string, unknown>>,
  text: string,
  place: string,
): Readonly<Record<string, unknown>> {
  const isNested = Object.values(row).some((value) => typeof value === "object" && value !== null);
  if (!isNested || !losesInJavaScript(text)) return row;
  const data = atPlace(place, () => parseJsonData(text));
  if (!isJsonObject(data)) return row;
  return Object.fromEntries([...data].map(([name, value]) => [name, plainNumber(value)]));
}
