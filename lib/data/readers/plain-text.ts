import type { BadRows } from "#lib/data/bad-rows";
import { readTextDocument } from "#lib/data/datasets/text";
import type { RawRow } from "./row.js";

/** A plain text file is one row, whose text is the whole file. */
export async function* readPlainText(file: string, _badRows: BadRows): AsyncGenerator<RawRow> {
  const { id, text } = await readTextDocument(file);
  yield { place: id, fields: { text } };
}
