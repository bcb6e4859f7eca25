import { type FileHandle, open } from "node:fs/promises";
import type { EncodedElements } from "./elements.js";
import { writeAll } from "./write-all.js";

/** A file that is being written from its beginning to its end. */
export interface FileTarget {
  /** The bytes may be others once it has resolved. */
  write(bytes: Uint8Array): Promise<void>;
  /** On memory that is shared by threads the elements have to stay as they are until the file is closed. */
  writeElements(elements: EncodedElements): Promise<void>;
  /** Nothing more comes. @returns bytes written */
  close(): Promise<number>;
  /** Gives up a file that is not whole; it stays for the caller to remove. */
  abandon(): Promise<void>;
}

/** Opens a file by its path, which is that of the directory it will be in. */
export type OpenTarget = (file: string) => Promise<FileTarget>;

/** A file of this machine, written by this thread; it is fsynced when it is closed. */
export const openLocalTarget: OpenTarget = async (file) => new LocalTarget(await open(file, "w"));

class LocalTarget implements FileTarget {
  readonly #handle: FileHandle;
  #position = 0;

  constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#position = await writeAll(this.#handle, bytes, this.#position);
  }

  async writeElements(elements: EncodedElements): Promise<void> {
    for (const piece of elements) await this.write(piece);
  }

  async close(): Promise<number> {
    try {
      await this.#handle.sync();
    } finally {
      await this.#handle.close();
    }
    return this.#position;
  }

  async abandon(): Promise<void> {
    await this.#handle.close();
  }
}
