import { LockstepError } from "#lib/core/errors/index";
import type { ObjectStore } from "#lib/store/object-store";
import type { ByteReader } from "./file-reader.js";
import type { StateFiles } from "./state-files.js";

/** What is asked for at once, and again where the answer breaks off. */
const rangeBytes = 64 * 1024 * 1024;

/** Files of tensors below a key of a store: what is asked for of them is read, no more. */
export function storedFiles(store: ObjectStore, start: string): StateFiles {
  let listed: ReturnType<ObjectStore["list"]> | undefined;
  const list = async () => (listed ??= store.list(start));
  return {
    names: async () => (await list()).map(({ key }) => key.slice(start.length)),
    open: async (name) => {
      const key = `${start}${name}`;
      const found = (await list()).find((object) => object.key === key);
      if (found === undefined) {
        throw new LockstepError("E_FILE_NOT_FOUND", { file: store.url(key), what: "weights file" });
      }
      return new ObjectReader(store, key, found.sizeBytes);
    },
  };
}

class ObjectReader implements ByteReader {
  readonly file: string;
  readonly sizeBytes: number;
  readonly #store: ObjectStore;
  readonly #key: string;

  constructor(store: ObjectStore, key: string, sizeBytes: number) {
    this.#store = store;
    this.#key = key;
    this.file = store.url(key);
    this.sizeBytes = sizeBytes;
  }

  async readInto(into: Uint8Array, offset: number): Promise<void> {
    for (let done = 0; done < into.length; done += rangeBytes) {
      await this.#store.readInto(this.#key, into.subarray(done, done + rangeBytes), offset + done);
    }
  }

  async read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>> {
    if (offset + length > this.sizeBytes) {
      const gotBytes = Math.max(0, this.sizeBytes - offset);
      const { file } = this;
      throw new LockstepError("E_FILE_TRUNCATED", { file, offset, wantedBytes: length, gotBytes });
    }
    const bytes = new Uint8Array(length);
    await this.readInto(bytes, offset);
    return bytes;
  }

  async close(): Promise<void> {}
}
