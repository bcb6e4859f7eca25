import { readdir, stat } from "node:fs/promises";
import { basename, dirname, extname, join } from "node:path";
import { LockstepError } from "#lib/core/errors/index";
import type { Document } from "#lib/data/documents";
import { isMissingFile } from "#lib/data/files";
import { readJsonLines } from "./jsonl.js";
import { readSotu } from "./sotu.js";
import { readTextDocument } from "./text.js";

export const builtInDatasets: Readonly<Record<string, () => Promise<Document[]>>> = Object.freeze({
  sotu: readSotu,
});

const readers: Readonly<
  Record<string, (file: string, textField: string) => AsyncIterable<Document> | Promise<Document>>
> = Object.freeze({
  ".txt": (file) => readTextDocument(file),
  ".jsonl": (file, textField) => readJsonLines(file, { textField }),
});
/** Documents are held in memory until they are packed; UTF-16 takes up to twice this. */
const maxDatasetCharacters = 2 ** 32;
const extensions = Object.keys(readers);

/**
 * Reads the documents of one source: a built-in data set's name, or a file, a directory (its data
 * files, by name) or a pattern with `*` in its last part. Blank documents are left out.
 *
 * @throws E_DATASET_UNKNOWN, E_DATASET_FORMAT, E_DATA_TOO_LARGE, and what the readers throw
 */
export async function readDocuments(
  source: string,
  { textField = "text" }: { textField?: string } = {},
): Promise<Document[]> {
  if (Object.hasOwn(builtInDatasets, source)) return (await builtInDatasets[source]?.()) ?? [];
  const documents: Document[] = [];
  let numCharacters = 0;
  const add = (file: string, document: Document): void => {
    numCharacters += document.text.length;
    if (numCharacters > maxDatasetCharacters) {
      const sizes = { sizeBytes: numCharacters, limitBytes: maxDatasetCharacters };
      throw new LockstepError("E_DATA_TOO_LARGE", { file, what: "data set up to here", ...sizes });
    }
    if (document.text !== "") documents.push(document);
  };
  for (const file of await dataFiles(source)) {
    const reader = readers[extname(file)];
    if (reader === undefined)
      throw new LockstepError("E_DATASET_FORMAT", { file, known: extensions });
    const found = reader(file, textField);
    if (found instanceof Promise) add(file, await found);
    else for await (const document of found) add(file, document);
  }
  return documents;
}

/** The files that a path or pattern names, in the order of their names. */
async function dataFiles(source: string): Promise<string[]> {
  const unknown = (): LockstepError =>
    new LockstepError("E_DATASET_UNKNOWN", {
      dataset: source,
      known: Object.keys(builtInDatasets),
    });
  const list = async (directory: string, matches: (name: string) => boolean): Promise<string[]> => {
    const names = (await readdir(directory)).filter(matches).sort();
    if (names.length === 0) throw unknown();
    return names.map((name) => join(directory, name));
  };
  try {
    const pattern = basename(source);
    if (pattern.includes("*")) {
      const parts = pattern.split("*").map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&"));
      const expression = new RegExp(`^${parts.join("[^/]*")}$`);
      return await list(dirname(source), (name) => expression.test(name));
    }
    if ((await stat(source)).isDirectory()) {
      return await list(source, (name) => extensions.includes(extname(name)));
    }
    return [source];
  } catch (error) {
    if (isMissingFile(error)) throw unknown();
    throw error;
  }
}
