import { readdirSync } from "node:fs";
import { claimFolder } from "#lib/checkpoint/claim-folder";

/** Files and folders in an output directory, in order; but for the claim, of which each start makes another. */
export const namesOfRun = (output: string): string[] =>
  readdirSync(output, { recursive: true })
    .map(String)
    .filter((name) => !name.startsWith(claimFolder))
    .sort();
