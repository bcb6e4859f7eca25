import { Worker } from "node:worker_threads";
import { LockstepError } from "#lib/core/errors/index";
import type { SavedFile, WrittenPlace } from "#lib/core/saved-files";
import { catalogued, ThreadClient } from "#lib/core/thread-client";
import type { EncodedElements } from "./elements.js";
import type { FileTarget, OpenTarget } from "./file-target.js";
import type { WriterCall } from "./writer-protocol.js";

type WriterClient = ThreadClient<true, WriterCall, SavedFile | undefined>;

/**
 * Threads that encode, hash and write files, so that who computes and who serves goes on meanwhile. Shared memory is
 * read where it lies and has to stay as it is until a file is closed. Files are not fsynced.
 */
export class WriterThreads {
  readonly #threads: readonly WriterClient[];
  readonly #placeOf: (file: string) => WrittenPlace;
  readonly #written = new Map<string, SavedFile>();
  #numFiles = 0;

  private constructor(threads: readonly WriterClient[], placeOf: (file: string) => WrittenPlace) {
    this.#threads = threads;
    this.#placeOf = placeOf;
  }

  /** @param placeOf where the file of a path is written; by default there */
  static async start(
    numThreads: number,
    placeOf: (file: string) => WrittenPlace = (file) => ({ file }),
  ): Promise<WriterThreads> {
    const threads = Array.from({ length: numThreads }, (_, index): WriterClient => {
      const thread = new Worker(new URL("./writer-thread.js", import.meta.url), {
        name: `writer-${index}`,
      });
      const failed = (reason: string) =>
        new LockstepError("E_CHECKPOINT_WRITE", { file: "a checkpoint", problem: reason });
      return new ThreadClient(thread, {
        failed: (error) => catalogued(error) ?? failed(error.stack || error.message),
        died: (cause) =>
          failed(`its thread ended: ${typeof cause === "number" ? cause : cause.message}`),
      });
    });
    await Promise.all(threads.map((thread) => thread.started()));
    return new WriterThreads(threads, placeOf);
  }

  /** The files that are closed, by their paths. */
  get written(): ReadonlyMap<string, SavedFile> {
    return this.#written;
  }

  /** Files go to the threads one after the other. */
  readonly openTarget: OpenTarget = async (file) => {
    const id = this.#numFiles++;
    const thread = this.#threads[id % this.#threads.length] as WriterClient;
    await thread.call({ kind: "open", id, place: this.#placeOf(file) });
    return new ThreadTarget(thread, id, (written) => this.#written.set(file, written));
  };

  async close(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.close({ kind: "end" })));
  }
}

class ThreadTarget implements FileTarget {
  readonly #thread: WriterClient;
  readonly #id: number;
  readonly #onWritten: (written: SavedFile) => void;
  #error: { readonly error: unknown } | undefined;

  constructor(thread: WriterClient, id: number, onWritten: (written: SavedFile) => void) {
    this.#thread = thread;
    this.#id = id;
    this.#onWritten = onWritten;
  }

  async write(bytes: Uint8Array): Promise<void> {
    await this.#thread.call({ kind: "write", id: this.#id, bytes });
  }

  async writeElements({ values, dtype, tensor }: EncodedElements): Promise<void> {
    if (this.#error !== undefined) throw this.#error.error;
    const done = this.#thread.call({
      ...{ kind: "elements", id: this.#id, dtype, tensor },
      values,
    });
    // Memory of one thread alone is copied on the way, a tensor at a time.
    if (!values.parts.every(({ buffer }) => buffer instanceof SharedArrayBuffer))
      return void (await done);
    done.catch((error: unknown) => {
      this.#error ??= { error };
    });
  }

  async close(): Promise<number> {
    const written = await this.#thread.call({ kind: "close", id: this.#id });
    if (this.#error !== undefined) throw this.#error.error;
    if (written === undefined) throw new RangeError("A file was closed that is not open");
    this.#onWritten(written);
    return written.sizeBytes;
  }

  async abandon(): Promise<void> {
    // What was asked for before is read then.
    await this.#thread.call({ kind: "abandon", id: this.#id }).catch(() => {});
  }
}
