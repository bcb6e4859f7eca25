import type { Document } from "#lib/data/documents";
import { maxDocumentBytes, readTextFile } from "#lib/data/files";

/**
 * A plain text file as one document, every blank and line end of it.
 *
 * @throws E_FILE_NOT_FOUND, E_DATA_TOO_LARGE, E_DATA_INVALID_UTF8
 */
export async function readTextDocument(file: string): Promise<Document> {
  const text = await readTextFile(file, { what: "text file", limitBytes: maxDocumentBytes });
  return { id: file, text };
}
