import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { openSafetensors, type SafetensorsFile } from "./safetensors-file.js";

/** Files of a directory of this machine or of a store, of which ranges are read. */
export interface StateFiles {
  names(): Promise<readonly string[]>;
  open(name: string): Promise<SafetensorsFile>;
}

export const localFiles = (directory: string): StateFiles => ({
  names: async () => (existsSync(directory) ? readdir(directory) : []),
  open: async (name) => openSafetensors(join(directory, name)),
});
