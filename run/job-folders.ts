import { mkdirSync, readdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { jobIdPattern } from "#lib/queue/job";

/** Folders of jobs that a machine keeps, those that were used last. */
const maxFolders = 200;

/** The folder of a job, for what its runs say; those of jobs of long ago go. */
export function jobFolder(directory: string, id: string): string {
  const folder = join(directory, id);
  mkdirSync(folder, { recursive: true });
  const others = readdirSync(directory)
    .filter((name) => jobIdPattern.test(name) && name !== id)
    .flatMap((name) => {
      const path = join(directory, name);
      const mtimeMs = [path, join(path, "output.log")].map(
        (each) => statSync(each, { throwIfNoEntry: false })?.mtimeMs ?? 0,
      );
      return [{ path, usedMs: Math.max(...mtimeMs) }];
    })
    .sort((a, b) => b.usedMs - a.usedMs);
  for (const { path } of others.slice(maxFolders - 1)) {
    rmSync(path, { recursive: true, force: true });
  }
  return folder;
}
