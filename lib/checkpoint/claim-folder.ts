import { readdir } from "node:fs/promises";
import { explainWriteError } from "./atomic-save.js";

/** The folder of an output directory that says whose it is; what it holds is `run/claim-files`'s. */
export const claimFolder = ".lockstep-claim";

/** Whether nothing but a claim is in a directory, or there is none. @throws E_CHECKPOINT_WRITE */
export async function isUnused(directory: string): Promise<boolean> {
  try {
    return (await readdir(directory)).every((name) => name === claimFolder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return true;
    throw explainWriteError(error, directory);
  }
}
