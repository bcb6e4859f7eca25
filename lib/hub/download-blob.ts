import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { type FileHandle, mkdir, open, realpath, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { LockstepError } from "#lib/core/errors/index";
import { lockAcrossProcesses } from "./process-lock.js";
import { isPassing, openRange, UnusableAnswer } from "./requests.js";
import type { HubSettings } from "./settings.js";

/** A file of a repository and what is known of its content. */
export interface HubFile {
  readonly name: string;
  readonly sizeBytes: number;
  /** SHA-256 of a large file (LFS), else git's hash of a blob. */
  readonly hash: string;
  readonly url: string;
}

/** Attempts without a single new byte between them. */
const maxAttempts = 5;

/**
 * Brings a file's content to `path`, where it appears once it is whole: its size and its hash are checked
 * first. What has arrived stays beside it as `.incomplete`, and the next attempt, of this process or
 * of a later one, asks for the rest. One process at a time fetches; others wait for it.
 *
 * @param onBytes called with the bytes that are there, kept ones included
 * @throws E_HUB_CHECKSUM; what a request threw, once attempts are used up
 */
export async function downloadBlob(
  file: HubFile,
  path: string,
  model: { readonly id: string },
  settings: HubSettings,
  hooks: { readonly onBytes: (arrivedBytes: number) => void; readonly onWait: () => void },
): Promise<void> {
  if (await hasSize(path, file.sizeBytes)) return;
  await mkdir(dirname(path), { recursive: true });
  // By whichever way a process came to it.
  const place = join(await realpath(dirname(path)), basename(path));
  const unlock = await lockAcrossProcesses(place, hooks.onWait);
  try {
    if (await hasSize(path, file.sizeBytes)) return;
    const partial = `${path}.incomplete`;
    for (let isFresh = false; ; isFresh = true) {
      const keptBytes = await fetchRest(file, partial, settings, hooks.onBytes);
      const got = await hashOf(partial, file);
      if (got === file.hash) break;
      await rm(partial, { force: true });
      // The kept bytes may be at fault: of a file that another program left, or a disk that lost power.
      if (keptBytes > 0 && !isFresh) continue;
      const { id } = model;
      const { endpoint } = settings;
      const facts = { id, file: file.name, endpoint, expected: file.hash, got };
      throw new LockstepError("E_HUB_CHECKSUM", facts);
    }
    await rename(partial, path).catch(async (error: unknown) => {
      // A process of another machine, on a shared disk, was here first with the same bytes.
      if (!(await hasSize(path, file.sizeBytes))) throw error;
    });
  } finally {
    await unlock();
  }
}

/** Fetches until the file has its size. @returns the bytes that were there before */
async function fetchRest(
  file: HubFile,
  partial: string,
  settings: HubSettings,
  onBytes: (arrivedBytes: number) => void,
): Promise<number> {
  const handle = await open(partial, "a+").then(async (made) => {
    await made.close();
    return open(partial, "r+");
  });
  try {
    let { size: arrived } = await handle.stat();
    if (arrived > file.sizeBytes) {
      await handle.truncate(0);
      arrived = 0;
    }
    const keptBytes = arrived;
    onBytes(arrived);
    for (let failures = 0; arrived < file.sizeBytes; ) {
      const before = arrived;
      try {
        arrived = await fetchOnce(file, handle, arrived, settings, (bytes) => {
          arrived = bytes;
          onBytes(bytes);
        });
      } catch (error) {
        failures = arrived > before ? 1 : failures + 1;
        if (!isPassing(error) || failures >= maxAttempts) throw error;
        await delay(settings.retryPauseMs * 2 ** (failures - 1));
      }
    }
    await handle.datasync();
    return keptBytes;
  } finally {
    await handle.close();
  }
}

async function fetchOnce(
  file: HubFile,
  handle: FileHandle,
  offset: number,
  settings: HubSettings,
  onBytes: (arrivedBytes: number) => void,
): Promise<number> {
  const { start, pieces } = await openRange(file.url, offset, file.sizeBytes, settings);
  let position = start;
  for await (const piece of pieces) {
    if (position + piece.byteLength > file.sizeBytes) {
      throw new UnusableAnswer(`${file.name} has more than its ${file.sizeBytes} bytes`);
    }
    for (let done = 0; done < piece.byteLength; ) {
      const { bytesWritten } = await handle.write(
        piece,
        done,
        piece.byteLength - done,
        position + done,
      );
      done += bytesWritten;
    }
    position += piece.byteLength;
    onBytes(position);
  }
  if (position < file.sizeBytes) throw new TypeError("terminated");
  return position;
}

async function hashOf(path: string, { hash, sizeBytes }: HubFile): Promise<string> {
  // Git hashes a header and the content.
  const hasher =
    hash.length === 64 ? createHash("sha256") : createHash("sha1").update(`blob ${sizeBytes}\0`);
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) {
    hasher.update(chunk as Buffer);
  }
  return hasher.digest("hex");
}

/** Whether a blob is there, whole. */
export const hasBlob = (file: HubFile, path: string): Promise<boolean> =>
  hasSize(path, file.sizeBytes);

const hasSize = (path: string, sizeBytes: number): Promise<boolean> =>
  stat(path).then(
    (stats) => stats.isFile() && stats.size === sizeBytes,
    () => false,
  );
