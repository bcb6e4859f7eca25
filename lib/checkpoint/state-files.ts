import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { type ByteReader, FileReader } from "./file-reader.js";

/** Files of a directory of this machine or of a store, of which ranges are read. */
export interface StateFiles {
  names(): Promise<readonly string[]>;
  open(name: string): Promise<ByteReader>;
}

export const localFiles = (directory: string): StateFiles => ({
  names: async () => (existsSync(directory) ? readdir(directory) : []),
  open: async (name) => FileReader.open(join(directory, name), "weights file"),
});
