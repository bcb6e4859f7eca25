import { stat } from "node:fs/promises";
import { LockstepError } from "#lib/core/errors/index";
import { kindOf, readFailure } from "#lib/core/regular-file";
import { isMissingFile } from "#lib/data/files";
import { directoryFiles } from "./directory.js";
import { matchPattern } from "./patterns.js";
import type { SourceFiles, SourceRequest } from "./request.js";

export type { SourceFiles, SourceRequest } from "./request.js";
export { parseSplit } from "./splits.js";

/**
 * The files that a path names: itself, what a pattern matches, or those of a directory's split.
 *
 * @param isData whether a file of a directory counts
 * @param known names that are no paths, for the message
 * @throws E_DATASET_UNKNOWN, E_DATASET_DIRECTORY, E_FILE_UNREADABLE
 */
export async function dataFiles(
  request: SourceRequest,
  { isData, known }: { isData: (name: string) => boolean; known: readonly string[] },
): Promise<SourceFiles> {
  const { path, split, subset } = request;
  const unknown = (): LockstepError =>
    new LockstepError("E_DATASET_UNKNOWN", { dataset: path, known });
  const refuseParts = (what: string): void => {
    const part = subset === undefined ? `split ${split ?? ""}` : `subset ${subset}`;
    if (subset === undefined && (split ?? "train") === "train") return;
    const problem = `it is ${what}, and the ${part} is a part of a directory`;
    throw new LockstepError("E_DATASET_DIRECTORY", { directory: path, problem });
  };
  try {
    if (/[*?]/.test(path)) {
      refuseParts("a pattern");
      const files = await matchPattern(path);
      if (files.length === 0) throw unknown();
      return { files, notes: [] };
    }
    const stats = await stat(path);
    if (stats.isDirectory()) return await directoryFiles(request, isData);
    if (!stats.isFile()) {
      const problem = `it is ${kindOf(stats)}`;
      throw new LockstepError("E_FILE_UNREADABLE", { file: path, what: "data file", problem });
    }
    refuseParts("a file");
    return { files: [path], notes: [] };
  } catch (error) {
    if (isMissingFile(error)) throw unknown();
    throw readFailure(error, path, "data file");
  }
}
