import type { ObjectStore } from "./object-store.js";

/** Bytes of a part; a store takes 10,000 of them, so that an object has at most 160 GB. */
const partBytes = 16 * 1024 * 1024;
/** Parts on their way at a time, each a copy of its bytes. */
const maxParts = 3;

type Uploaded = Awaited<ReturnType<ObjectStore["uploadPart"]>>;

/** An object that is written from its beginning to its end, in parts that travel at the same time. */
export class MultipartUpload {
  readonly #store: ObjectStore;
  readonly #key: string;
  #id: string | undefined;
  #part = new Uint8Array(partBytes);
  #filled = 0;
  #sizeBytes = 0;
  readonly #parts: Promise<Uploaded>[] = [];
  readonly #underway = new Set<Promise<unknown>>();

  constructor(store: ObjectStore, key: string) {
    this.#store = store;
    this.#key = key;
  }

  /** The bytes are copied; waits while as many parts as may be are on their way. */
  async write(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      const count = Math.min(bytes.length - done, partBytes - this.#filled);
      this.#part.set(bytes.subarray(done, done + count), this.#filled);
      this.#filled += count;
      done += count;
      if (this.#filled === partBytes) await this.#send();
    }
    this.#sizeBytes += bytes.length;
  }

  /** @returns bytes written; the object is there then */
  async close(): Promise<number> {
    if (this.#id === undefined) {
      await this.#store.put(this.#key, this.#part.subarray(0, this.#filled));
      return this.#sizeBytes;
    }
    if (this.#filled > 0) await this.#send();
    await this.#store.completeUpload(this.#key, this.#id, await Promise.all(this.#parts));
    return this.#sizeBytes;
  }

  /** Gives it up: nothing of it stays, where the store can still be reached. */
  async abandon(): Promise<void> {
    await Promise.allSettled(this.#parts);
    if (this.#id !== undefined) await this.#store.abortUpload(this.#key, this.#id).catch(() => {});
  }

  async #send(): Promise<void> {
    this.#id ??= await this.#store.beginUpload(this.#key);
    while (this.#underway.size >= maxParts) await Promise.race(this.#underway);
    const number = this.#parts.length + 1;
    const sent = this.#store.uploadPart(
      ...([this.#key, this.#id, number, this.#part.subarray(0, this.#filled)] as const),
    );
    this.#parts.push(sent);
    this.#underway.add(sent);
    const ended = (): void => void this.#underway.delete(sent);
    sent.then(ended, ended);
    this.#part = new Uint8Array(partBytes);
    this.#filled = 0;
  }
}
