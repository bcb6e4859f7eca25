import { closeSync, constants, openSync, readSync, type Stats, statSync } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import { LockstepError } from "./errors/index.js";

/** A file on a disk, opened to be read from its start to where it ended when it was opened. */
interface RegularFile {
  readonly handle: FileHandle;
  readonly sizeBytes: number;
}

/**
 * Opens a file that somebody named. A pipe would wait for ever and a device never end, so only a regular
 * file is opened, and nobody reads beyond its size.
 *
 * @param what names the file in errors
 * @throws E_FILE_NOT_FOUND, E_FILE_UNREADABLE
 */
export async function openRegularFile(file: string, what: string): Promise<RegularFile> {
  try {
    // Before it is opened, since opening is enough to wait for a pipe's writer or to move a device.
    checkKind(await stat(file), file, what);
    // A pipe that takes the file's place after the look answers at once.
    const handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const stats = await handle.stat();
      checkKind(stats, file, what);
      if (stats.size === 0) await refuseSizeless(handle, file, what);
      return { handle, sizeBytes: stats.size };
    } catch (error) {
      await handle.close();
      throw error;
    }
  } catch (cause) {
    throw readFailure(cause, file, what);
  }
}

/**
 * A regular file whole.
 *
 * @throws E_FILE_NOT_FOUND, E_FILE_UNREADABLE, E_FILE_TOO_LARGE
 */
export async function readRegularFile(
  file: string,
  { what, limitBytes }: { what: string; limitBytes: number },
): Promise<Buffer> {
  const opened = await openRegularFile(file, what);
  try {
    const { sizeBytes: actualBytes } = opened;
    if (actualBytes > limitBytes) {
      throw new LockstepError("E_FILE_TOO_LARGE", { file, actualBytes, limitBytes });
    }
    return await readAll(opened);
  } finally {
    await opened.handle.close();
  }
}

/** The bytes of an opened file: fewer than its size where it has been cut since. */
export async function readAll({ handle, sizeBytes }: RegularFile): Promise<Buffer> {
  const bytes = Buffer.alloc(sizeBytes);
  let done = 0;
  while (done < sizeBytes) {
    const { bytesRead } = await handle.read(bytes, done, sizeBytes - done, done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return bytes.subarray(0, done);
}

/** The first bytes of a regular file as text. @throws as {@link openRegularFile} does */
export function readRegularTextSync(file: string, what: string, limitBytes: number): string {
  try {
    checkKind(statSync(file), file, what);
    const descriptor = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const bytes = Buffer.alloc(limitBytes);
      return bytes.toString("utf8", 0, readSync(descriptor, bytes, 0, limitBytes, 0));
    } finally {
      closeSync(descriptor);
    }
  } catch (cause) {
    throw readFailure(cause, file, what);
  }
}

/** @throws E_FILE_UNREADABLE */
function checkKind(stats: Stats, file: string, what: string): void {
  if (stats.isFile()) return;
  throw new LockstepError("E_FILE_UNREADABLE", { file, what, problem: `it is ${kindOf(stats)}` });
}

/** What there is where a regular file should be. */
export function kindOf(stats: Stats): string {
  if (stats.isDirectory()) return "a directory";
  if (stats.isFIFO()) return "a pipe";
  if (stats.isSocket()) return "a socket";
  return stats.isCharacterDevice() || stats.isBlockDevice() ? "a device" : "no regular file";
}

/** Files of /proc say that they are empty, and some of them never end. */
async function refuseSizeless(handle: FileHandle, file: string, what: string): Promise<void> {
  const { bytesRead } = await handle
    .read(Buffer.alloc(1), 0, 1, 0)
    .catch(() => ({ bytesRead: 1 }) as const);
  if (bytesRead === 0) return;
  const problem = "the system makes its content up while it is read, so that it has no size";
  throw new LockstepError("E_FILE_UNREADABLE", { file, what, problem });
}

const reasons: Readonly<Record<string, string>> = {
  EACCES: "this user may not read it",
  EPERM: "this user may not read it",
  EISDIR: "it is a directory",
  ELOOP: "its symbolic links lead in a circle",
  ENAMETOOLONG: "its name is too long",
  ERR_INVALID_ARG_VALUE: "its name holds a null character",
  ENXIO: "it is a socket or a device",
};

/** An error of the system that a path can cause, as one of the catalogue; others as they are. */
export function readFailure(cause: unknown, file: string, what: string): unknown {
  if (cause instanceof LockstepError || !(cause instanceof Error)) return cause;
  const code = String((cause as NodeJS.ErrnoException).code);
  if (code === "ENOENT" || code === "ENOTDIR") {
    return new LockstepError("E_FILE_NOT_FOUND", { file, what }, { cause });
  }
  const problem = reasons[code];
  if (problem === undefined) return cause;
  return new LockstepError("E_FILE_UNREADABLE", { file, what, problem }, { cause });
}
