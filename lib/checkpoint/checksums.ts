import { createHash } from "node:crypto";
import { readdir, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { isLockstepError, LockstepError } from "#lib/core/errors/index";
import type { SavedFile } from "#lib/core/saved-files";
import { FileReader, isRecord, readJsonFile } from "./file-reader.js";
import { maxConfigBytes } from "./limits.js";
import { PieceSums } from "./piece-sums.js";

/** Bytes that are hashed between two turns of the event loop: about a millisecond of work. */
const hashChunkBytes = 1024 * 1024;

/** What is known of the files of a directory, by their paths in it. */
type FileSums = ReadonlyMap<string, SavedFile>;

/**
 * Sums of every file in a directory, subdirectories included, and of those that are known.
 *
 * @param known files whose sums are known, by path: they need not be there, another place may have them
 */
export async function sumsOf(
  directory: string,
  known: ReadonlyMap<string, SavedFile> = new Map(),
): Promise<FileSums> {
  const sums = new Map<string, SavedFile>();
  const elsewhere = [...known.keys()].map((path) => relative(directory, path));
  for (const file of [...new Set([...(await listFiles(directory)), ...elsewhere])].sort()) {
    const path = join(directory, file);
    sums.set(file, known.get(path) ?? (await fileSums(path)));
  }
  return sums;
}

/**
 * Writes `name` into `directory`: the SHA-256 of every other file in it, subdirectories included.
 * Files whose sums are not known are read back.
 *
 * @param known files whose sums are known, by path: they need not be there, another place may have them
 */
export async function writeChecksums(
  directory: string,
  name: string,
  known?: ReadonlyMap<string, SavedFile>,
): Promise<void> {
  const sums: Record<string, string> = {};
  for (const [file, { sha256: sum }] of await sumsOf(directory, known)) {
    if (file !== name) sums[file] = sum;
  }
  await writeFile(join(directory, name), `${JSON.stringify(sums, null, 2)}\n`);
}

/**
 * @param required files that have to be listed: what is read and has no checksum could be anything
 * @param read files that are read and compared, by default all; the others have to be there
 * @throws E_CHECKPOINT_DAMAGED when a listed file is missing or has other bytes, or a required one is not listed
 */
export async function verifyChecksums(
  directory: string,
  name: string,
  required: readonly string[] = [],
  read?: readonly string[],
): Promise<void> {
  const fail = (file: string, problem: string, cause?: unknown): never => {
    throw new LockstepError("E_CHECKPOINT_DAMAGED", { directory, file, problem }, { cause });
  };
  const sums = await readJsonFile(join(directory, name), "list of checksums", maxConfigBytes).catch(
    (error: unknown) => {
      const isMissing = isLockstepError(error) && error.code === "E_FILE_NOT_FOUND";
      return fail(name, isMissing ? "is missing" : "cannot be read", error);
    },
  );
  if (!isRecord(sums)) return fail(name, "is not a list of checksums");
  for (const file of required) {
    if (!Object.hasOwn(sums, file)) fail(file, `has no checksum in ${name}`);
  }
  for (const [file, expected] of Object.entries(sums)) {
    if (file.startsWith("/") || file.split("/").includes("..")) fail(file, "lies outside of it");
    try {
      if (read !== undefined && !read.includes(file)) {
        await (await FileReader.open(join(directory, file), "checkpoint file")).close();
        continue;
      }
      if ((await sha256(join(directory, file))) !== expected) fail(file, "has a wrong checksum");
    } catch (error) {
      if (isLockstepError(error) && error.code === "E_FILE_NOT_FOUND") {
        fail(file, "is missing", error);
      }
      throw error;
    }
  }
}

export const sha256 = async (path: string): Promise<string> => (await fileSums(path)).sha256;

async function fileSums(path: string): Promise<SavedFile> {
  const reader = await FileReader.open(path, "checkpoint file");
  try {
    const { sizeBytes } = reader;
    const hash = createHash("sha256");
    const pieces = new PieceSums();
    const buffer = new Uint8Array(Math.min(hashChunkBytes, reader.sizeBytes));
    for (let done = 0; done < reader.sizeBytes; done += buffer.length) {
      const part = buffer.subarray(0, Math.min(buffer.length, reader.sizeBytes - done));
      await reader.readInto(part, done);
      hash.update(part);
      pieces.update(part);
    }
    return { sizeBytes, sha256: hash.digest("hex"), pieces: pieces.digest() };
  } finally {
    await reader.close();
  }
}

/** @returns undefined where there is no such list */
export async function readChecksums(
  directory: string,
  name: string,
): Promise<ReadonlyMap<string, string> | undefined> {
  const sums = await readJsonFile(join(directory, name), "list of checksums", maxConfigBytes).catch(
    () => undefined,
  );
  if (!isRecord(sums)) return undefined;
  return new Map(Object.entries(sums).map(([file, sum]) => [file, String(sum)]));
}

/** Paths of all regular files below `directory`, relative to it, sorted. */
export async function listFiles(directory: string, prefix = ""): Promise<string[]> {
  const files: string[] = [];
  for (const item of await readdir(join(directory, prefix), { withFileTypes: true })) {
    const path = prefix === "" ? item.name : `${prefix}/${item.name}`;
    if (item.isDirectory()) files.push(...(await listFiles(directory, path)));
    else if (item.isFile()) files.push(path);
  }
  return files.sort();
}
