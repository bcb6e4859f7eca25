import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { LockstepError } from "#lib/core/errors/index";
import { readFailure } from "#lib/core/regular-file";
import { isMissingFile } from "#lib/data/files";

/** Deeper than any data set is; links to a directory above would go on for ever. */
const maxDepth = 12;
/** Files of a data set; hubs recommend at most 100,000. */
const maxFiles = 100_000;

/**
 * What is no directory below a directory, by its path from there, sorted. Names that begin with "." or
 * "__" are left out, as `datasets` does. Links are followed: a hub's snapshot is made of them.
 *
 * @throws E_DATASET_DIRECTORY, E_FILE_UNREADABLE
 */
export async function filesBelow(directory: string): Promise<string[]> {
  const found: string[] = [];
  const walk = async (below: string, depth: number): Promise<void> => {
    if (depth > maxDepth || found.length > maxFiles) {
      const problem =
        depth > maxDepth
          ? `${below} is more than ${maxDepth} directories deep`
          : `it holds more than ${maxFiles} files`;
      throw new LockstepError("E_DATASET_DIRECTORY", { directory, problem });
    }
    const place = join(directory, below);
    const entries = await readdir(place, { withFileTypes: true }).catch((error: unknown) => {
      throw readFailure(error, place, "directory");
    });
    for (const entry of entries) {
      if (entry.name.startsWith(".") || entry.name.startsWith("__")) continue;
      const path = below === "" ? entry.name : `${below}/${entry.name}`;
      const isDirectory = entry.isSymbolicLink()
        ? await leadsToDirectory(join(directory, path))
        : entry.isDirectory();
      if (isDirectory) await walk(path, depth + 1);
      else found.push(path);
    }
  };
  await walk("", 0);
  return found.sort();
}

/** A link that leads nowhere is a file that is not there: whoever opens it says so. */
async function leadsToDirectory(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch (error) {
    if (isMissingFile(error)) return false;
    throw readFailure(error, path, "data file");
  }
}
