import {
  Empty,
  ErrorCode,
  headers,
  type KV,
  type KvEntry,
  NatsError,
  type QueuedIterator,
} from "nats";
import { LockstepError } from "#lib/core/errors/index";
import {
  maxRecordBytes,
  type RecordFolder,
  type RecordStore,
  type StoredRecord,
} from "#lib/queue/record-store";
import type { NatsLink } from "./connection.js";
import { bucket, bucketStream, openBucket } from "./job-bucket.js";

const streamNotFound = 10_059;
/** JetStream's: a key has another revision than the one that is to be replaced. */
const wrongLastSequence = 10_071;
/** A stream of which messages have no time to live. */
const ttlDisabled = 10_166;
/** So long who watches may learn that a record was removed; who comes later sees that there is none. */
const markerTtl = "1h";
/** What the server has is to be here so soon; otherwise the watch is begun anew. */
const freshWithinMs = 3_000;

/**
 * A queue in a key-value bucket of JetStream. Writes are the server's compare-and-set, which a cluster carries out by
 * its leader. All records are watched, so that a look costs one question: whether there are newer ones.
 */
export class NatsRecordStore implements RecordStore {
  readonly place: string;
  readonly #link: NatsLink;
  readonly #kv: KV;
  readonly #stopListening: () => void;
  /** Who waits, and for which records. */
  readonly #waiting = new Map<() => void, (folder: string, key: string) => boolean>();
  #records = new Map<string, StoredRecord & { readonly folder: string }>();
  #watch: QueuedIterator<KvEntry> | undefined;
  #seenSequence = 0;
  /** Up to here nothing is kept that was not seen: what came last was removed since. */
  #goneSequence = 0;
  #numWatches = 0;

  private constructor(link: NatsLink, kv: KV) {
    this.place = `${bucket} at ${link.servers}`;
    this.#link = link;
    this.#kv = kv;
    this.#stopListening = link.onReopened(() => void this.#watchAnew());
  }

  /**
   * Closes the connection with itself.
   *
   * @param mayMake makes the bucket where there is none
   * @throws E_NATS_REFUSED, E_QUEUE_AWAY, E_QUEUE_UNMADE
   */
  static async open(link: NatsLink, mayMake = true): Promise<NatsRecordStore> {
    const place = `${bucket} at ${link.servers}`;
    try {
      const store = new NatsRecordStore(link, await openBucket(link, place, mayMake));
      await store.#watchAnew();
      return store;
    } catch (error) {
      await link.close();
      throw explain(error, place);
    }
  }

  get(folder: RecordFolder, key: string): Promise<StoredRecord | undefined> {
    return this.#reach(async () => {
      const entry = await this.#kv.get(nameOf(folder, key));
      // The library says the same of a key and of a bucket that is not there.
      if (entry === null) await this.#kv.status();
      if (entry === null || entry.operation !== "PUT") return undefined;
      return { key, value: textOf(entry), revision: entry.revision };
    });
  }

  write(folder: RecordFolder, key: string, value: string, revision: number): Promise<boolean> {
    return this.#reach(async () => {
      const [name, bytes] = [nameOf(folder, key), new TextEncoder().encode(value)];
      try {
        if (revision === 0) await this.#kv.create(name, bytes);
        else await this.#kv.update(name, bytes, revision);
        return true;
      } catch (error) {
        if (codeOf(error) === wrongLastSequence) return false;
        throw error;
      }
    });
  }

  put(folder: RecordFolder, key: string, value: string): Promise<void> {
    return this.#reach(async () => {
      await this.#kv.put(nameOf(folder, key), new TextEncoder().encode(value));
    });
  }

  remove(folder: RecordFolder, key: string): Promise<void> {
    return this.#reach(async () => {
      const subject = `$KV.${bucket}.${nameOf(folder, key)}`;
      // As the library does it, but that what says so goes by itself.
      const marker = headers();
      marker.set("KV-Operation", "PURGE");
      marker.set("Nats-Rollup", "sub");
      marker.set("Nats-TTL", markerTtl);
      try {
        await this.#link.streams.publish(subject, Empty, { headers: marker });
      } catch (error) {
        if (codeOf(error) !== ttlDisabled) throw error;
        // A bucket that somebody else has made: the marker stays.
        await this.#kv.purge(nameOf(folder, key));
      }
    });
  }

  entries(folder: RecordFolder): Promise<readonly StoredRecord[]> {
    return this.#reach(async () => {
      await this.#catchUp();
      return [...this.#records.values()]
        .filter((record) => record.folder === folder)
        .map(({ key, value, revision }) => ({ key, value, revision }));
    });
  }

  changed(timeoutMs: number, signal?: AbortSignal, key?: string): Promise<void> {
    // Signs of life, which come all the time, are looked at by those who look.
    const isMeant = (folder: string, of: string): boolean =>
      folder === "jobs" && (key === undefined || of === key);
    return this.#arrived(isMeant, timeoutMs, signal);
  }

  async close(): Promise<void> {
    this.#stopListening();
    for (const wake of [...this.#waiting.keys()]) wake();
    this.#watch?.stop();
    await this.#link.close();
  }

  /** Waits until everything is here that the server had when it was asked. */
  async #catchUp(): Promise<void> {
    const seenBefore = this.#seenSequence;
    const { state } = (await this.#kv.status()).streamInfo;
    const { last_seq: last } = state;
    if (seenBefore > last) {
      await this.#watchAnew();
      throw away(this.place, "it was removed and made anew");
    }
    // Somebody has removed all that there was.
    if (state.messages === 0) this.#records.clear();
    const isHere = (): boolean =>
      state.messages === 0 || Math.max(this.#seenSequence, this.#goneSequence) >= last;
    const deadlineMs = performance.now() + freshWithinMs;
    while (!isHere()) {
      if (this.#seenSequence >= (await this.#lastKept())) {
        this.#goneSequence = last;
        return;
      }
      const leftMs = deadlineMs - performance.now();
      if (leftMs <= 0) {
        void this.#watchAnew();
        throw away(this.place, "what is written there does not arrive");
      }
      if (!isHere()) await this.#arrived(() => true, leftMs);
    }
  }

  /** Of what the bucket still holds; 0: nothing. */
  async #lastKept(): Promise<number> {
    const manager = await this.#link.manager();
    const query = { last_by_subj: `$KV.${bucket}.>` };
    return (await manager.streams.getMessage(bucketStream, query)).seq;
  }

  /** The newest of each record first, in the order in which they were written, and then all that follow. */
  async #watchAnew(): Promise<void> {
    this.#watch?.stop();
    this.#watch = undefined;
    this.#seenSequence = 0;
    this.#goneSequence = 0;
    this.#records = new Map();
    const own = ++this.#numWatches;
    try {
      const watch = await this.#kv.watch();
      if (own === this.#numWatches) {
        this.#watch = watch;
        void this.#follow(watch, this.#records);
      } else watch.stop();
    } catch {
      // The next look finds that nothing arrives, and begins anew.
    }
  }

  async #follow(
    watch: QueuedIterator<KvEntry>,
    records: Map<string, StoredRecord & { readonly folder: string }>,
  ): Promise<void> {
    try {
      for await (const entry of watch) {
        if (watch !== this.#watch) return;
        const { key: name, revision, operation } = entry;
        const [, folder = "", key = ""] = /^(jobs|beats)\.([a-z0-9]+)$/.exec(name) ?? [];
        if (operation === "PUT" && key !== "" && entry.length <= maxRecordBytes) {
          records.set(name, { folder, key, value: textOf(entry), revision });
        } else records.delete(name);
        this.#seenSequence = Math.max(this.#seenSequence, revision);
        for (const [wake, isMeant] of [...this.#waiting]) if (isMeant(folder, key)) wake();
      }
    } catch {
      // The next look finds that nothing arrives, and begins anew.
    }
  }

  /** Ends once a record that is meant has arrived, or the time is over. */
  async #arrived(
    isMeant: (folder: string, key: string) => boolean,
    timeoutMs: number,
    signal?: AbortSignal,
  ): Promise<void> {
    if (signal?.aborted === true || timeoutMs <= 0) return;
    await new Promise<void>((resolve) => {
      const wake = (): void => {
        clearTimeout(timer);
        this.#waiting.delete(wake);
        signal?.removeEventListener("abort", wake);
        resolve();
      };
      const timer = setTimeout(wake, timeoutMs);
      this.#waiting.set(wake, isMeant);
      signal?.addEventListener("abort", wake);
    });
  }

  async #reach<T>(action: () => Promise<T>): Promise<T> {
    try {
      return await this.#link.ask(action);
    } catch (error) {
      throw explain(error, this.place);
    }
  }
}

/** One record of a queue, of which nothing is watched or made; undefined: there is none, or no queue. */
export async function queuedRecord(
  link: NatsLink,
  folder: RecordFolder,
  key: string,
): Promise<string | undefined> {
  try {
    const kv = await link.streams.views.kv(bucket, { bindOnly: true, allow_direct: false });
    const entry = await kv.get(nameOf(folder, key));
    return entry === null || entry.operation !== "PUT" ? undefined : textOf(entry);
  } catch (error) {
    if (codeOf(error) === streamNotFound) return undefined;
    throw explain(error, `${bucket} at ${link.servers}`);
  }
}

const nameOf = (folder: RecordFolder, key: string): string => `${folder}.${key}`;
const textOf = (entry: KvEntry): string => new TextDecoder().decode(entry.value);

const codeOf = (error: unknown): number | undefined =>
  error instanceof NatsError ? error.api_error?.err_code : undefined;

const away = (place: string, reason: string, cause?: unknown): LockstepError =>
  new LockstepError("E_QUEUE_AWAY", { place, reason }, { cause });

function explain(error: unknown, place: string): unknown {
  if (!(error instanceof NatsError)) {
    return error instanceof LockstepError ? error : away(place, messageOf(error), error);
  }
  if (error.code === String(ErrorCode.PermissionsViolation)) {
    const { operation = "use", subject = "it" } = error.permissionContext ?? {};
    const reason = `this user may not ${operation} ${subject}`;
    return new LockstepError("E_NATS_REFUSED", { servers: place, reason }, { cause: error });
  }
  return away(place, reasonOf(error), error);
}

function reasonOf(error: NatsError): string {
  if (error.api_error !== undefined) return error.api_error.description;
  if (error.code === String(ErrorCode.NoResponders)) {
    return "JetStream is off, or its cluster has no leader now";
  }
  if (error.code === String(ErrorCode.Timeout)) return "it gave no answer in time";
  return error.message;
}

const messageOf = (error: unknown): string =>
  error instanceof Error ? error.message : String(error);
