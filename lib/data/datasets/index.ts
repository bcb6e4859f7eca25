import type { Document } from "#lib/data/documents";
import { readSotu } from "./sotu.js";

/** Data sets that come with Lockstep, by name. */
export const builtInDatasets: Readonly<Record<string, () => Promise<Document[]>>> = Object.freeze({
  sotu: readSotu,
});
