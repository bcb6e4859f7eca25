import { readRegularFile } from "#lib/core/regular-file";

/** A token is a line; a larger file is the wrong file. */
const maxTokenBytes = 1 << 20;

/** @throws E_FILE_NOT_FOUND, E_FILE_UNREADABLE, E_FILE_TOO_LARGE */
export async function readToken(file: string | null): Promise<string | undefined> {
  if (file === null) return undefined;
  const limits = { what: "HTTP token", limitBytes: maxTokenBytes };
  return (await readRegularFile(file, limits)).toString("utf8").trim();
}
