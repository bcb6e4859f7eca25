import { LockstepError } from "#lib/core/errors/index";
import type { BadExamples } from "#lib/data/bad-examples";
import { decodeUtf8 } from "#lib/data/files";
import { splitLines } from "./lines.js";
import { maxColumns, maxExampleBytes, type RawExample } from "./raw-example.js";

/** What stands between the fields of a table, the usual ones first. */
const separators = [",", ";", "\t", "|"] as const;
type Separator = (typeof separators)[number];

/**
 * The rows of a table with a header line, as RFC 4180 writes it: fields that hold separators, quotes or
 * line ends are quoted, quotes inside doubled. All values are strings. Where the header has one column by
 * the separator of the file's name and several by another, the other one stands between the fields.
 * Blanks around the names of columns are none of them, and a column without a name is not read.
 *
 * csv-parse does not fit: its relax_quotes, without which `5" pipe` ends the file, joins `"1"x","2"` into one
 * field without a word; it replaces bytes that are not UTF-8, and names the line where an example ends.
 *
 * @throws E_FILE_NOT_FOUND, E_FILE_UNREADABLE, E_DATA_TOO_LARGE, E_DATA_TOO_MANY_COLUMNS, E_DATA_CSV
 *   where the header is none or a quote is not closed; as bad examples E_DATA_INVALID_UTF8, and E_DATA_CSV
 *   where the number of fields is another
 */
export async function* readTable(
  file: string,
  badExamples: BadExamples,
  usual: "," | "\t",
): AsyncGenerator<RawExample> {
  let separator: Separator = usual;
  let header: readonly string[] | undefined;
  let line = 0;
  let record = "";
  let recordLine = 0;
  let isOpen = false;
  for await (const { bytes, fileOffset } of splitLines(file)) {
    line++;
    let text: string;
    try {
      text = decodeUtf8(bytes, { file, fileOffset, line });
    } catch (error) {
      // Without its header nothing in the file has a meaning.
      if (header === undefined) throw error;
      badExamples.reject(error);
      continue;
    }
    if (!isOpen) {
      if (text === "" || text === "\r") continue;
      record = "";
      recordLine = line;
    }
    record += isOpen ? `\n${text}` : text;
    if (record.length > maxExampleBytes) {
      const sizes = { sizeBytes: record.length, limitBytes: maxExampleBytes };
      throw new LockstepError("E_DATA_TOO_LARGE", {
        file,
        what: `row of line ${recordLine}`,
        ...sizes,
      });
    }
    if (header === undefined && !isOpen) {
      // A spreadsheet writes this line where its separator is not the comma.
      const said = /^sep=([,;|\t])\r?$/.exec(text)?.[1];
      if (said !== undefined) {
        separator = said as Separator;
        continue;
      }
      if (separator === usual) separator = separatorOf(text, usual);
    }
    isOpen = isOpenAfter(text, separator, isOpen);
    if (isOpen) continue;
    try {
      const values = splitRecord(record.replace(/\r$/, ""), separator, { file, line: recordLine });
      if (values.length > maxColumns) {
        const facts = { file, numColumns: values.length, limit: maxColumns };
        throw new LockstepError("E_DATA_TOO_MANY_COLUMNS", facts);
      }
      if (header === undefined) header = readHeader(values, { file, line: recordLine });
      else {
        if (values.length !== header.length) {
          const counts = `the row has ${values.length} fields, the header ${header.length}`;
          const problem = `${counts} (separated by ${JSON.stringify(separator)})`;
          throw new LockstepError("E_DATA_CSV", { file, line: recordLine, problem });
        }
        const named = header.map((name, i): [string, string | undefined] => [name, values[i]]);
        const fields = Object.fromEntries(named.filter(([name]) => name !== ""));
        yield { place: `${file}:${recordLine}`, fields };
      }
    } catch (error) {
      if (header === undefined) throw error;
      badExamples.reject(error);
    }
  }
  if (isOpen) {
    const problem = "a quote opens in this row and is not closed before the end of the file";
    throw new LockstepError("E_DATA_CSV", { file, line: recordLine, problem });
  }
}

/** The separator by which a header has several columns; the usual one where none is better. */
function separatorOf(line: string, usual: Separator): Separator {
  const numFields = (separator: Separator): number => {
    let count = 1;
    let isQuoted = false;
    for (const character of line) {
      if (character === '"') isQuoted = !isQuoted;
      else if (character === separator && !isQuoted) count++;
    }
    return count;
  };
  if (numFields(usual) > 1) return usual;
  return separators.reduce(
    (best, each) => (numFields(each) > numFields(best) ? each : best),
    usual,
  );
}

/** @throws E_DATA_CSV */
function readHeader(values: readonly string[], place: { file: string; line: number }): string[] {
  const names = values.map((name) => name.trim());
  const fail = (problem: string): never => {
    throw new LockstepError("E_DATA_CSV", { ...place, problem });
  };
  const twice = names.find((name, i) => name !== "" && names.indexOf(name) !== i);
  if (twice !== undefined) fail(`the header has the column ${JSON.stringify(twice)} twice`);
  if (names.every((name) => name === "")) fail("the header names no column");
  if (names.some((name) => name.includes("\r"))) {
    fail("its lines end in a carriage return alone: write line feeds");
  }
  return names;
}

/** Whether a line ends inside a quoted field. A quote within a field that is not quoted is text. */
function isOpenAfter(line: string, separator: string, isOpen: boolean): boolean {
  let position = 0;
  let startsField = !isOpen;
  let open = isOpen;
  for (;;) {
    if (startsField && line[position] === '"') {
      open = true;
      position++;
    }
    if (open) {
      const end = closingQuote(line, position);
      if (end < 0) return true;
      open = false;
      position = end + 1;
    }
    const next = line.indexOf(separator, position);
    if (next < 0) return false;
    position = next + 1;
    startsField = true;
  }
}

/** Quotes inside a quoted field are doubled. */
function closingQuote(text: string, position: number): number {
  let end = text.indexOf('"', position);
  while (end >= 0 && text[end + 1] === '"') end = text.indexOf('"', end + 2);
  return end;
}

/** The fields of one whole record. @throws E_DATA_CSV */
function splitRecord(
  record: string,
  separator: string,
  place: { file: string; line: number },
): string[] {
  const values: string[] = [];
  let position = 0;
  for (;;) {
    if (record[position] === '"') {
      const end = closingQuote(record, position + 1);
      if (end < 0) {
        throw new LockstepError("E_DATA_CSV", { ...place, problem: "a quote is not closed" });
      }
      values.push(record.slice(position + 1, end).replaceAll('""', '"'));
      position = end + 1;
      if (position < record.length && record[position] !== separator) {
        const problem = `field ${values.length} goes on after its closing quote`;
        throw new LockstepError("E_DATA_CSV", { ...place, problem });
      }
    } else {
      const end = record.indexOf(separator, position);
      if (/^ +"/.test(record.slice(position, position + 80))) {
        const problem = `field ${values.length + 1} has a blank before its opening quote`;
        throw new LockstepError("E_DATA_CSV", { ...place, problem });
      }
      values.push(record.slice(position, end < 0 ? record.length : end));
      position = end < 0 ? record.length : end;
    }
    if (position >= record.length) return values;
    position++;
  }
}
