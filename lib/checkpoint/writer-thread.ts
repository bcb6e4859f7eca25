import { createHash } from "node:crypto";
import { closeSync, openSync, writeSync } from "node:fs";
import { serveThread } from "#lib/core/thread-client";
import { explainWriteError } from "./atomic-save.js";
import { encodeElements } from "./elements.js";
import type { WrittenFile, WriterCall } from "./writer-protocol.js";

/** What is hashed and written at a time, bytes: it stays in the processor's cache between the two. */
const pieceBytes = 1024 * 1024;

/** A file with the checksum of what is in it. Everything is synchronous: the thread does nothing else. */
class HashedFile {
  readonly #file: string;
  readonly #descriptor: number;
  readonly #hash = createHash("sha256");
  #sizeBytes = 0;

  constructor(file: string) {
    this.#file = file;
    this.#descriptor = this.#explained(() => openSync(file, "w"));
  }

  write(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; done += pieceBytes) {
      const piece = bytes.subarray(done, done + pieceBytes);
      this.#hash.update(piece);
      this.#explained(() => {
        for (let at = 0; at < piece.length; ) at += writeSync(this.#descriptor, piece, at);
      });
      this.#sizeBytes += piece.length;
    }
  }

  close(): WrittenFile {
    this.#explained(() => closeSync(this.#descriptor));
    return { sizeBytes: this.#sizeBytes, sha256: this.#hash.digest("hex") };
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

const files = new Map<number, HashedFile>();

function handle(call: WriterCall): WrittenFile | undefined {
  if (call.kind === "end") return undefined;
  if (call.kind === "open") {
    files.set(call.id, new HashedFile(call.file));
    return undefined;
  }
  const file = files.get(call.id);
  // Calls after one that failed.
  if (file === undefined) return undefined;
  try {
    switch (call.kind) {
      case "write":
        file.write(call.bytes);
        return undefined;
      case "elements":
        for (const piece of encodeElements(call.values, call.dtype, call.tensor)) file.write(piece);
        return undefined;
      case "close":
        files.delete(call.id);
        return file.close();
    }
  } catch (error) {
    files.delete(call.id);
    file.abandon();
    throw error;
  }
}

await serveThread<true, WriterCall, WrittenFile | undefined>(async () => ({
  ready: true,
  handle,
  isLast: ({ kind }) => kind === "end",
}));
