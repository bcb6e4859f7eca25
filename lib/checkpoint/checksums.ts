import { createHash } from "node:crypto";
import { readdir, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { isLockstepError, LockstepError } from "#lib/core/errors/index";
import { FileReader, isRecord, readJsonFile } from "./file-reader.js";
import { maxConfigBytes } from "./limits.js";

/** Bytes that are hashed between two turns of the event loop: about a millisecond of work. */
const hashChunkBytes = 1024 * 1024;

/**
 * Writes `name` into `directory`: the SHA-256 of every other file in it, subdirectories included.
 * Files whose sums are not known are read back.
 *
 * @param known files whose sums are known, by path: they need not be there, another place may have them
 */
export async function writeChecksums(
  directory: string,
  name: string,
  known: ReadonlyMap<string, { readonly sha256: string }> = new Map(),
): Promise<void> {
  const sums: Record<string, string> = {};
  const elsewhere = [...known.keys()].map((path) => relative(directory, path));
  for (const file of [...new Set([...(await listFiles(directory)), ...elsewhere])].sort()) {
    const path = join(directory, file);
    if (file !== name) sums[file] = known.get(path)?.sha256 ?? (await sha256(path));
  }
  await writeFile(join(directory, name), `${JSON.stringify(sums, null, 2)}\n`);
}

/**
 * @param required files that have to be listed: what is read and has no checksum could be anything
 * @throws E_CHECKPOINT_DAMAGED when a listed file is missing or has other bytes, or a required one is not listed
 */
export async function verifyChecksums(
  directory: string,
  name: string,
  required: readonly string[] = [],
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
      if ((await sha256(join(directory, file))) !== expected) fail(file, "has a wrong checksum");
    } catch (error) {
      if (isLockstepError(error) && error.code === "E_FILE_NOT_FOUND") {
        fail(file, "is missing", error);
      }
      throw error;
    }
  }
}

export async function sha256(path: string): Promise<string> {
  const reader = await FileReader.open(path, "checkpoint file");
  try {
    const hash = createHash("sha256");
    const buffer = new Uint8Array(Math.min(hashChunkBytes, reader.sizeBytes));
    for (let done = 0; done < reader.sizeBytes; done += buffer.length) {
      const part = buffer.subarray(0, Math.min(buffer.length, reader.sizeBytes - done));
      await reader.readInto(part, done);
      hash.update(part);
    }
    return hash.digest("hex");
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
