import { randomBytes } from "node:crypto";
import { link, mkdir, open, readdir, rm, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { isLockstepError, LockstepError } from "#lib/core/errors/index";
import {
  maxRecordBytes,
  type RecordFolder,
  recordFolders,
  type RecordStore,
  type StoredRecord,
} from "./record-store.js";

/** KEY.REVISION.json */
const recordName = /^([a-z0-9]+)\.(\d{1,15})\.json$/;
const temporaryName = /^\.tmp-/;
/** After this long a file that was never linked belongs to a process that was killed. */
const staleMs = 3_600_000;
/** How often changes of other processes are looked for. */
const lookMs = 250;

/**
 * A queue in a directory, which the processes of a machine share, and those of several on a file system with hard
 * links (NFS has them). A record's revision is a file of its own that appears whole, by a link, and only where there
 * is none of that name: of two writers one succeeds. The highest revision is the record; the one before it stays, and
 * older ones go, the oldest first, each after the temporary files of the writers who would take its name anew.
 */
export class DirectoryStore implements RecordStore {
  readonly place: string;
  readonly #directory: string;
  /** What a revision holds never changes. */
  readonly #known = new Map<string, StoredRecord>();

  private constructor(directory: string) {
    this.place = directory;
    this.#directory = resolve(directory);
  }

  /** @param mayMake makes it where there is none @throws E_QUEUE_AWAY, E_QUEUE_UNMADE */
  static async open(directory: string, mayMake = true): Promise<DirectoryStore> {
    const store = new DirectoryStore(directory);
    await store.#reach(async () => {
      if (!mayMake && !(await isThere(join(store.#directory, "jobs")))) {
        throw new LockstepError("E_QUEUE_UNMADE", { place: directory });
      }
      for (const folder of recordFolders) {
        const path = join(store.#directory, folder);
        await mkdir(path, { recursive: true });
        await removeStale(path);
      }
    });
    return store;
  }

  get(folder: RecordFolder, key: string): Promise<StoredRecord | undefined> {
    return this.#reach(async () => {
      for (;;) {
        const revision = (await this.#revisions(folder)).get(key)?.at(-1);
        if (revision === undefined) return undefined;
        const value = await this.#read(folder, key, revision);
        if (value !== undefined) return { key, value, revision };
      }
    });
  }

  write(folder: RecordFolder, key: string, value: string, revision: number): Promise<boolean> {
    return this.#reach(async () => {
      const path = join(this.#directory, folder);
      const temporary = join(path, `${temporaryPrefix(key)}${revision}.${randomHex()}`);
      try {
        await writeSynced(temporary, value);
        // In this order: whoever makes the new name free again after this look sees the temporary file before.
        if (!(await this.#isNewest(folder, key, revision))) return false;
        if (!(await isLinked(temporary, this.#file(folder, key, revision + 1)))) return false;
      } finally {
        await rm(temporary, { force: true });
      }
      await syncDirectory(path);
      await this.#removeOlder(folder, key, revision);
      return true;
    });
  }

  async put(folder: RecordFolder, key: string, value: string): Promise<void> {
    for (;;) {
      const revision = (await this.get(folder, key))?.revision ?? 0;
      if (await this.write(folder, key, value, revision)) return;
    }
  }

  remove(folder: RecordFolder, key: string): Promise<void> {
    return this.#reach(async () => {
      await this.#removeOlder(folder, key, Number.POSITIVE_INFINITY);
    });
  }

  entries(folder: RecordFolder): Promise<readonly StoredRecord[]> {
    return this.#reach(async () => {
      const records: StoredRecord[] = [];
      const revisionsByKey = await this.#revisions(folder);
      for (const [key, revisions] of revisionsByKey) {
        const revision = revisions.at(-1) ?? 0;
        const name = `${folder}/${key}`;
        const known = this.#known.get(name);
        const record =
          known?.revision === revision ? known : await this.#readable(folder, key, revision);
        if (record === undefined) continue;
        this.#known.set(name, record);
        records.push(record);
      }
      for (const name of this.#known.keys()) {
        const [inFolder, key = ""] = name.split("/");
        if (inFolder === folder && !revisionsByKey.has(key)) this.#known.delete(name);
      }
      return records;
    });
  }

  /** Other machines' writes to a shared file system are told by nobody: the time between two looks is all there is. */
  async changed(timeoutMs: number, signal?: AbortSignal): Promise<void> {
    const options = signal === undefined ? {} : { signal };
    await delay(Math.min(timeoutMs, lookMs), undefined, options).catch(() => {});
  }

  async close(): Promise<void> {}

  #file(folder: RecordFolder, key: string, revision: number): string {
    return join(this.#directory, folder, `${key}.${revision}.json`);
  }

  /** Whether a record stands at this revision. Older ones go first: while it is there the next name is no past one. */
  async #isNewest(folder: RecordFolder, key: string, revision: number): Promise<boolean> {
    if (revision === 0) return !(await this.#revisions(folder)).has(key);
    const isReplaced = await isThere(this.#file(folder, key, revision + 1));
    return !isReplaced && (await isThere(this.#file(folder, key, revision)));
  }

  /**
   * Removes the revisions before this one. A writer who has not linked yet, and could do so where a name becomes free
   * now, loses its temporary file first: its link fails, and so it knows.
   */
  async #removeOlder(folder: RecordFolder, key: string, revision: number): Promise<void> {
    const path = join(this.#directory, folder);
    const names = await readdir(path);
    const prefix = temporaryPrefix(key);
    for (const name of names) {
      if (!name.startsWith(prefix)) continue;
      const replaced = Number.parseInt(name.slice(prefix.length), 10);
      if (replaced + 1 < revision) await rm(join(path, name), { force: true });
    }
    for (const other of revisionsIn(names).get(key) ?? []) {
      if (other < revision) await rm(this.#file(folder, key, other), { force: true });
    }
  }

  async #revisions(folder: RecordFolder): Promise<ReadonlyMap<string, readonly number[]>> {
    return revisionsIn(await readdir(join(this.#directory, folder)));
  }

  /** One that nobody reads, as it is too large, holds up none of the others: it is as good as empty. */
  async #readable(
    folder: RecordFolder,
    key: string,
    revision: number,
  ): Promise<StoredRecord | undefined> {
    try {
      return await this.get(folder, key);
    } catch (error) {
      if (isLockstepError(error) && error.code === "E_QUEUE_RECORD") {
        return { key, value: "", revision };
      }
      throw error;
    }
  }

  /** @returns undefined where it went since it was listed */
  async #read(folder: RecordFolder, key: string, revision: number): Promise<string | undefined> {
    try {
      const file = await open(this.#file(folder, key, revision), "r");
      try {
        const { size } = await file.stat();
        if (size > maxRecordBytes) {
          const problem = `it has ${size} bytes of at most ${maxRecordBytes}`;
          throw new LockstepError("E_QUEUE_RECORD", { key, place: this.place, problem });
        }
        return await file.readFile("utf8");
      } finally {
        await file.close();
      }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
      throw error;
    }
  }

  async #reach<T>(action: () => Promise<T>): Promise<T> {
    try {
      return await action();
    } catch (cause) {
      if (cause instanceof LockstepError) throw cause;
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new LockstepError("E_QUEUE_AWAY", { place: this.place, reason }, { cause });
    }
  }
}

/** Of each key, ascending. */
function revisionsIn(names: readonly string[]): ReadonlyMap<string, readonly number[]> {
  const revisions = new Map<string, number[]>();
  for (const name of names) {
    const [, key, revision] = recordName.exec(name) ?? [];
    if (key === undefined) continue;
    const known = revisions.get(key) ?? [];
    known.push(Number(revision));
    revisions.set(key, known);
  }
  for (const known of revisions.values()) known.sort((a, b) => a - b);
  return revisions;
}

/** Of the file of a writer; the revision follows that it is to replace, and what no other writer's file is called. */
const temporaryPrefix = (key: string): string => `.tmp-${key}.`;
const randomHex = (): string => randomBytes(8).toString("hex");

async function writeSynced(path: string, value: string): Promise<void> {
  const file = await open(path, "wx");
  try {
    await file.writeFile(value);
    await file.sync();
  } finally {
    await file.close();
  }
}

/**
 * Links a file under a name that is free.
 * @returns whether it has that name now
 */
async function isLinked(file: string, name: string): Promise<boolean> {
  try {
    await link(file, name);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // The file is gone: the name was taken, and is free again.
    if (code === "ENOENT") return false;
    if (code !== "EEXIST") throw error;
    // A server whose answer got lost is asked again by the kernel, and says so of its own link.
    return (await stat(file).catch(() => undefined))?.nlink === 2;
  }
}

async function isThere(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return false;
    throw error;
  }
}

async function removeStale(path: string): Promise<void> {
  for (const name of await readdir(path)) {
    if (!temporaryName.test(name)) continue;
    const { mtimeMs } = await stat(join(path, name)).catch(() => ({ mtimeMs: Date.now() }));
    if (Date.now() - mtimeMs > staleMs) await rm(join(path, name), { force: true });
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
