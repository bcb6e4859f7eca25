import { LockstepError } from "#lib/core/errors/index";
import { BadExamples } from "./bad-examples.js";
import { isBlank } from "./documents.js";
import { decodeUtf8 } from "./files.js";
import { refuseHalfCharacters } from "./half-characters.js";
import { dataExtension, readRawExamples } from "./readers/index.js";
import { splitLines } from "./readers/lines.js";

/** A text without a label, or a pair of texts. */
export interface ReadText {
  /** File and line. */
  readonly place: string;
  readonly text: string;
  readonly pair: string | null;
}

/** Names of columns, where they are not those of labelled examples: text or sentence, or sentence1 and sentence2. */
interface TextColumns {
  readonly text?: string | undefined;
  readonly pair?: string | undefined;
}

/**
 * The texts of one file, read as a stream: of the rows of a table or of JSON, or the lines of a .txt
 * file that are not blank.
 *
 * @throws E_TEXT_UNUSABLE for an example without the column, E_DATA_LONE_SURROGATE, and what the readers throw
 */
export async function* readTexts(file: string, columns: TextColumns): AsyncGenerator<ReadText> {
  if (dataExtension(file) === ".txt") {
    if (columns.text !== undefined || columns.pair !== undefined) {
      const problem = "a .txt file has lines and no columns";
      throw new LockstepError("E_TEXT_UNUSABLE", { place: file, problem });
    }
    yield* readLines(file);
    return;
  }
  for await (const { place, fields } of readRawExamples(file, new BadExamples("error"))) {
    const of = (column: string): string => {
      const value = Object.hasOwn(fields, column) ? fields[column] : undefined;
      if (typeof value === "string") {
        refuseHalfCharacters(value, place);
        return value;
      }
      const names = Object.keys(fields).slice(0, 10).join(", ");
      const problem =
        value === undefined || value === null
          ? `it has no text in the column ${JSON.stringify(column)} (its columns: ${names})`
          : `its column ${JSON.stringify(column)} is not text`;
      throw new LockstepError("E_TEXT_UNUSABLE", { place, problem });
    };
    const single =
      columns.text ?? ["text", "sentence"].find((name) => typeof fields[name] === "string");
    const pair = columns.pair ?? (single === undefined ? "sentence2" : undefined);
    // Without any of the columns, the usual one is what is missing.
    const first = single ?? (Object.hasOwn(fields, "sentence1") ? "sentence1" : "text");
    yield { place, text: of(first), pair: pair === undefined ? null : of(pair) };
  }
}

async function* readLines(file: string): AsyncGenerator<ReadText> {
  let line = 0;
  for await (const { bytes, fileOffset } of splitLines(file)) {
    line++;
    // Of a line only its end is no part of the text.
    const text = decodeUtf8(bytes, { file, fileOffset }).replace(/\r$/, "");
    if (!isBlank(text)) yield { place: `${file}:${line}`, text, pair: null };
  }
}
