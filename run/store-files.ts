import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { checksumsFile } from "#lib/checkpoint/checked-files";
import { readChecksums } from "#lib/checkpoint/checksums";
import { writeAll } from "#lib/checkpoint/write-all";
import { LockstepError } from "#lib/core/errors/index";
import { MultipartUpload } from "#lib/store/multipart-upload";
import type { ObjectStore, StoredObject } from "#lib/store/object-store";

/** Files that a checkpoint has beside its tensors, bytes; tokenizers are the largest. */
const maxFileBytes = 256 << 20;
/** What of a local file is in memory at a time. */
const uploadPieceBytes = 4 << 20;
const fetchPieceBytes = 16 << 20;

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
