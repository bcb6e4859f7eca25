import type { BadExamples } from "#lib/data/bad-examples";
import { readTextDocument } from "#lib/data/datasets/text";
import type { RawExample } from "./raw-example.js";

/** A plain text file is one example, whose text is the whole file. */
export async function* readPlainText(
  file: string,
  _badExamples: BadExamples,
): AsyncGenerator<RawExample> {
  const { id, text } = await readTextDocument(file);
  yield { place: id, fields: { text } };
}
