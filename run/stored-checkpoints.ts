import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, mkdtemp, open, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join, relative } from "node:path";
import { stageFiles } from "#lib/checkpoint/atomic-save";
import { checksumsFile } from "#lib/checkpoint/checked-files";
import { listFiles, readChecksums } from "#lib/checkpoint/checksums";
import {
  type CheckpointRecord,
  checkpointName,
  type OwnedCheckpoint,
  readCheckpointRecord,
} from "#lib/checkpoint/index";
import { checkpointRecordFile } from "#lib/checkpoint/run-record";
import { bySavedTime } from "#lib/checkpoint/rotation";
import { writeAll } from "#lib/checkpoint/write-all";
import { assertWritable } from "#lib/checkpoint/write-guard";
import type { ResolvedConfig } from "#lib/config/index";
import { LockstepError } from "#lib/core/errors/index";
import { parseStoreUrl } from "#lib/store/location";
import { MultipartUpload } from "#lib/store/multipart-upload";
import { ObjectStore, type StoredObject } from "#lib/store/object-store";
import {
  type CheckpointPlace,
  type SavedCheckpoint,
  type WriteCheckpoint,
} from "./checkpoint-files.js";

/** Files that a checkpoint has beside its tensors, bytes; tokenizers are the largest. */
const maxFileBytes = 256 << 20;
/** What of a local file is in memory at a time. */
const uploadPieceBytes = 4 << 20;

const fetchPieceBytes = 16 << 20;

const stores = new Map<string, Promise<ObjectStore>>();

/** The store that a configuration names; undefined: checkpoints are in the output directory. */
export async function storeOf(config: ResolvedConfig): Promise<ObjectStore | undefined> {
  return config.checkpoint_store === null ? undefined : storeAt(config.checkpoint_store, config);
}

/** @throws E_CONFIG_INVALID for what is no URL of a store */
export async function storeAt(
  url: string,
  config: Pick<ResolvedConfig, "s3_endpoint" | "s3_region">,
): Promise<ObjectStore> {
  const location = parseStoreUrl(url);
  if (location === undefined) {
    const expected = "s3://BUCKET or s3://BUCKET/PREFIX";
    throw new LockstepError("E_CONFIG_INVALID", {
      ...{ key: "checkpoint_store", expected, got: JSON.stringify(url), where: "" },
    });
  }
  const settings = {
    ...location,
    ...(config.s3_endpoint === null ? {} : { endpoint: config.s3_endpoint }),
    ...(config.s3_region === null ? {} : { region: config.s3_region }),
  };
  const name = JSON.stringify(settings);
  const opened = stores.get(name) ?? ObjectStore.open(settings);
  stores.set(name, opened);
  return opened;
}

/**
 * Checkpoints below a prefix. The list of checksums is stored last: without it there is no checkpoint. Whoever may not
 * write into the output directory any more may change nothing here either: a store refuses nobody itself.
 */
export class StoredCheckpoints implements CheckpointPlace {
  readonly #store: ObjectStore;
  /** Where files are written before they are stored. */
  readonly #outputDir: string;

  constructor(store: ObjectStore, outputDir: string) {
    this.#store = store;
    this.#outputDir = outputDir;
  }

  directoryOf(name: string): string {
    return this.#store.url(name);
  }

  async list(): Promise<readonly OwnedCheckpoint[]> {
    const found: OwnedCheckpoint[] = [];
    for (const { key } of await this.#store.list("checkpoint-")) {
      const [, step] = /^checkpoint-(\d{1,15})\/lockstep\/checksums\.json$/.exec(key) ?? [];
      if (step === undefined) continue;
      const name = checkpointName(Number(step));
      const record = await this.record(name).catch((error: unknown) => {
        if ((error as { code?: unknown }).code === "E_CHECKPOINT_STORE") throw error;
        return undefined;
      });
      const directory = this.directoryOf(name);
      found.push({ step: Number(step), directory, record, isOurs: true });
    }
    return found.sort(bySavedTime);
  }

  async record(name: string): Promise<CheckpointRecord | undefined> {
    return withFiles(this.#store, [`${name}/${checkpointRecordFile}`], (directory) =>
      readCheckpointRecord(join(directory, name)),
    );
  }

  async save(
    name: string,
    write: WriteCheckpoint,
    previous: string | undefined,
  ): Promise<SavedCheckpoint> {
    const store = this.#store;
    let [bytes, sharedBytes] = [0, 0];
    await stageFiles(join(this.#outputDir, name), async (temporary) => {
      await this.remove(this.directoryOf(name));
      const keyOf = (file: string): string => `${name}/${relative(temporary, file)}`;
      const written = await write(temporary, (file) => {
        assertWritable(file);
        return { store: store.settings, key: keyOf(file) };
      });
      for (const { sizeBytes } of written.values()) bytes += sizeBytes;
      await this.#requireSizes(name, new Map([...written].map(([path, of]) => [keyOf(path), of])));
      const before = previous === undefined ? undefined : await this.#sumsOf(basename(previous));
      const sums = await readChecksums(temporary, checksumsFile);
      const files = (await listFiles(temporary)).filter((file) => file !== checksumsFile);
      for (const file of [...files, checksumsFile]) {
        const path = join(temporary, file);
        assertWritable(path);
        const { size } = await stat(path);
        const isShared = sums?.get(file) !== undefined && before?.get(file) === sums.get(file);
        const copied = isShared && (await this.#copy(basename(previous ?? ""), name, file));
        if (copied) sharedBytes += size;
        else await uploadFile(store, path, keyOf(path));
        bytes += size;
      }
    });
    return { directory: this.directoryOf(name), bytes, sharedBytes };
  }

  /** Others may have written them, who told what they are. @throws E_CHECKPOINT_STORE */
  async #requireSizes(
    name: string,
    written: ReadonlyMap<string, { readonly sizeBytes: number }>,
  ): Promise<void> {
    const there = new Map(
      (await this.#store.list(`${name}/`)).map(({ key, sizeBytes }) => [key, sizeBytes]),
    );
    for (const [key, { sizeBytes }] of written) {
      const found = there.get(key);
      if (found === sizeBytes) continue;
      const problem = `${sizeBytes} bytes were written, and ${found ?? "none"} are there`;
      throw new LockstepError("E_CHECKPOINT_STORE", { place: this.#store.url(key), problem });
    }
  }

  /** The list of checksums goes first, so that nobody takes what is left for whole. */
  async remove(directory: string): Promise<void> {
    const name = basename(directory);
    const ours = join(this.#outputDir, name);
    assertWritable(ours);
    await this.#store.abortUploads(`${name}/`);
    const keys = (await this.#store.list(`${name}/`)).map(({ key }) => key);
    const manifest = `${name}/${checksumsFile}`;
    for (const some of [keys.filter((key) => key === manifest), keys]) {
      assertWritable(ours);
      await this.#store.delete(some);
    }
  }

  async #copy(from: string, to: string, file: string): Promise<boolean> {
    return this.#store.copy(`${from}/${file}`, `${to}/${file}`).then(
      () => true,
      () => false,
    );
  }

  async #sumsOf(name: string): Promise<ReadonlyMap<string, string> | undefined> {
    return withFiles(this.#store, [`${name}/${checksumsFile}`], (directory) =>
      readChecksums(join(directory, name), checksumsFile),
    );
  }
}

/** Stores a file of this machine. */
export async function uploadFile(store: ObjectStore, path: string, key: string): Promise<void> {
  const upload = new MultipartUpload(store, key);
  try {
    for await (const piece of createReadStream(path, { highWaterMark: uploadPieceBytes })) {
      await upload.write(piece as Uint8Array);
    }
    await upload.close();
  } catch (error) {
    await upload.abandon();
    throw error;
  }
}

/** Copies objects into a temporary directory, where there are such, and removes it in the end. */
export async function withFiles<T>(
  store: ObjectStore,
  keys: readonly string[],
  action: (directory: string) => Promise<T>,
): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), "lockstep-"));
  try {
    await fetchFiles(store, keys, (key) => join(directory, key));
    return await action(directory);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function fetchFiles(
  store: ObjectStore,
  keys: readonly string[],
  pathOf: (key: string) => string,
): Promise<void> {
  for (const key of keys) {
    const bytes = await store.get(key, maxFileBytes);
    if (bytes === undefined) continue;
    await mkdir(dirname(pathOf(key)), { recursive: true });
    await writeFile(pathOf(key), bytes);
  }
}

/**
 * Copies a checkpoint's model, and nothing of the run's own state, into a directory.
 *
 * @throws E_CHECKPOINT_DAMAGED for a file that is not the one that was saved
 */
export async function fetchModel(
  store: ObjectStore,
  name: string,
  isWanted: (file: string) => boolean,
  directory: string,
): Promise<void> {
  // A store's names may be anything, and those of files lead anywhere.
  const isInside = (file: string): boolean => !file.split(/[/\\]/).includes("..");
  const objects = (await store.list(`${name}/`)).filter(({ key }) => {
    const file = key.slice(name.length + 1);
    return isInside(file) && isWanted(file);
  });
  const manifest = `${name}/${checksumsFile}`;
  const sums = await withFiles(store, [manifest], (local) =>
    readChecksums(join(local, name), checksumsFile),
  );
  for (const object of objects) {
    const file = object.key.slice(name.length + 1);
    const sum = await fetchObject(store, object, join(directory, file));
    if (sum === sums?.get(file)) continue;
    const problem = "has a wrong checksum";
    throw new LockstepError("E_CHECKPOINT_DAMAGED", { directory: store.url(name), file, problem });
  }
}

/** @returns the SHA-256 of its bytes */
async function fetchObject(
  store: ObjectStore,
  { key, sizeBytes }: StoredObject,
  path: string,
): Promise<string> {
  await mkdir(dirname(path), { recursive: true });
  const handle = await open(path, "w");
  const hash = createHash("sha256");
  try {
    const piece = new Uint8Array(Math.min(sizeBytes, fetchPieceBytes));
    for (let done = 0; done < sizeBytes; done += piece.length) {
      const part = piece.subarray(0, Math.min(piece.length, sizeBytes - done));
      await store.readInto(key, part, done);
      await writeAll(handle, part, done);
      hash.update(part);
    }
    return hash.digest("hex");
  } finally {
    await handle.close();
  }
}
