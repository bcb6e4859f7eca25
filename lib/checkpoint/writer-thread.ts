import { createHash } from "node:crypto";
import { closeSync, openSync, writeSync } from "node:fs";
import type { SavedFile, WrittenPlace } from "#lib/core/saved-files";
import { serveThread } from "#lib/core/thread-client";
import { MultipartUpload } from "#lib/store/multipart-upload";
import { ObjectStore } from "#lib/store/object-store";
import { explainWriteError } from "./atomic-save.js";
import { encodeElements } from "./elements.js";
import { PieceSums } from "./piece-sums.js";
import type { WriterCall } from "./writer-protocol.js";

/** What is hashed and written at a time, bytes: it stays in the processor's cache between the two. */
const pieceBytes = 1024 * 1024;

/** Where the bytes of a file go. */
interface Sink {
  write(bytes: Uint8Array): Promise<void> | void;
  close(): Promise<unknown> | void;
  abandon(): Promise<void> | void;
}

/** A local file, written synchronously: the thread does nothing else. */
class LocalSink implements Sink {
  readonly #file: string;
  readonly #descriptor: number;

  constructor(file: string) {
    this.#file = file;
    this.#descriptor = this.#explained(() => openSync(file, "w"));
  }

  write(bytes: Uint8Array): void {
    this.#explained(() => {
      for (let at = 0; at < bytes.length; ) at += writeSync(this.#descriptor, bytes, at);
    });
  }

  close(): void {
    this.#explained(() => closeSync(this.#descriptor));
  }

  abandon(): void {
    closeSync(this.#descriptor);
  }

  /** Errors of the system lose their code on the way to another thread; those of the catalogue do not. */
  #explained<T>(action: () => T): T {
    try {
      return action();
    } catch (error) {
      throw explainWriteError(error, this.#file);
    }
  }
}

/** A file with the checksums of what is in it. */
class HashedFile {
  readonly #sink: Sink;
  readonly #hash = createHash("sha256");
  readonly #pieces = new PieceSums();
  #sizeBytes = 0;

  constructor(sink: Sink) {
    this.#sink = sink;
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; done += pieceBytes) {
      const piece = bytes.subarray(done, done + pieceBytes);
      this.#hash.update(piece);
      this.#pieces.update(piece);
      const written = this.#sink.write(piece);
      if (written !== undefined) await written;
      this.#sizeBytes += piece.length;
    }
  }

  async close(): Promise<SavedFile> {
    await this.#sink.close();
    const sha256 = this.#hash.digest("hex");
    return { sizeBytes: this.#sizeBytes, sha256, pieces: this.#pieces.digest() };
  }

  async abandon(): Promise<void> {
    await this.#sink.abandon();
  }
}

const stores = new Map<string, Promise<ObjectStore>>();

async function openSink(place: WrittenPlace): Promise<Sink> {
  if ("file" in place) return new LocalSink(place.file);
  const name = JSON.stringify(place.store);
  const store = stores.get(name) ?? ObjectStore.open(place.store);
  stores.set(name, store);
  return new MultipartUpload(await store, place.key);
}

const files = new Map<number, HashedFile>();

async function carryOut(
  call: Exclude<WriterCall, { kind: "end" }>,
): Promise<SavedFile | undefined> {
  if (call.kind === "open") {
    files.set(call.id, new HashedFile(await openSink(call.place)));
    return undefined;
  }
  const file = files.get(call.id);
  // Calls after one that failed.
  if (file === undefined) return undefined;
  try {
    switch (call.kind) {
      case "write":
        await file.write(call.bytes);
        return undefined;
      case "elements":
        for (const piece of encodeElements(call.values, call.dtype, call.tensor)) {
          await file.write(piece);
        }
        return undefined;
      case "close":
        files.delete(call.id);
        return await file.close();
      case "abandon":
        files.delete(call.id);
        await file.abandon();
        return undefined;
    }
  } catch (error) {
    files.delete(call.id);
    await file.abandon();
    throw error;
  }
}

/** The last call of each file: calls of one are carried out one after the other. */
const last = new Map<number, Promise<unknown>>();

async function handle(call: WriterCall): Promise<SavedFile | undefined> {
  if (call.kind === "end") return undefined;
  const before = last.get(call.id);
  const done = (async () => {
    await before?.catch(() => {});
    return carryOut(call);
  })();
  last.set(call.id, done);
  try {
    return await done;
  } finally {
    if (last.get(call.id) === done) last.delete(call.id);
  }
}

await serveThread<true, WriterCall, SavedFile | undefined>(async () => ({
  ready: true,
  handle,
  isLast: ({ kind }) => kind === "end",
}));
