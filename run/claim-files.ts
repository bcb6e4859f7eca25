import { randomUUID } from "node:crypto";
import {
  closeSync,
  constants,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { hostname } from "node:os";
import { join } from "node:path";
import { isRecord } from "#lib/checkpoint/file-reader";
import { bootId, type ProcessIdentity, thisProcess } from "#lib/core/process-identity";
import type { JobFence } from "./job-fence.js";

/*
 * Who owns an output directory, kept in a folder of it (claimFolder):
 * - `lock`: an empty file; where the file system has locks, the owner holds one on it, which the kernel
 *   drops with the process.
 * - `epoch-N.json`: the N-th owner's record. Making the next one is the claim: of several processes one can.
 *   The owner rewrites its own every few seconds, and nobody else's; once there is a higher one, it has lost.
 */

/** What an owner tells of itself. */
export interface ClaimRecord extends ProcessIdentity {
  readonly epoch: number;
  /** Random, of one claim. */
  readonly owner: string;
  readonly host: string;
  readonly bootId: string | null;
  /** Number of the device on which it holds a lock; null where it holds none. */
  readonly lockedDevice: number | null;
  /** ISO 8601. */
  readonly since: string;
  /** Rises while the owner lives; clocks of machines differ, so it is none. */
  readonly beats: number;
  readonly isReleased: boolean;
  /** Of a job of a queue: which giving of it the owner works for. */
  readonly fence: JobFence | null;
}

/** The newest record with its bytes, of which any change is a sign of life. */
export interface FoundClaim {
  readonly epoch: number;
  readonly text: string;
  /** Absent where it is just being written, was cut off, or is none that an owner made. */
  readonly record: ClaimRecord | undefined;
}

/** A record is rewritten in place, in one piece: its size stays. */
const recordBytes = 1024;
/** One of a host with a long name may be longer; what is longer still is none. */
const maxRecordBytes = 4 * recordBytes;

const epochFile = (epoch: number): string => `epoch-${epoch}.json`;

export function newRecord(
  epoch: number,
  lockedDevice: number | null,
  fence: JobFence | undefined,
): ClaimRecord {
  return {
    ...{ epoch, owner: randomUUID(), host: hostname(), ...thisProcess(), bootId: bootId() },
    ...{ lockedDevice, since: new Date().toISOString(), beats: 0, isReleased: false },
    fence: fence ?? null,
  };
}

function epochsIn(folder: string): number[] {
  const epochs = readdirSync(folder).map((name) =>
    Number(/^epoch-(\d{1,15})\.json$/.exec(name)?.[1]),
  );
  return epochs.filter(Number.isSafeInteger).sort((a, b) => b - a);
}

export function newestClaim(folder: string): FoundClaim | undefined {
  for (const epoch of epochsIn(folder)) {
    try {
      const text = readRecordText(join(folder, epochFile(epoch)));
      return { epoch, text, record: parseRecord(text) };
    } catch (error) {
      // An older one goes when a newer one is there.
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
  }
  return undefined;
}

/** A link, a pipe or a directory in a record's place has no text: a pipe is not waited for, nor a link followed. */
function readRecordText(file: string): string {
  let descriptor: number;
  try {
    const { O_RDONLY, O_NONBLOCK, O_NOFOLLOW } = constants;
    descriptor = openSync(file, O_RDONLY | O_NONBLOCK | O_NOFOLLOW);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ELOOP" || code === "ENXIO") return "";
    throw error;
  }
  try {
    if (!fstatSync(descriptor).isFile()) return "";
    const bytes = Buffer.alloc(maxRecordBytes);
    return bytes.toString("utf8", 0, readSync(descriptor, bytes, 0, maxRecordBytes, 0));
  } finally {
    closeSync(descriptor);
  }
}

/**
 * Makes the record of an epoch that has none yet, and removes older ones.
 * @returns false where another process was quicker
 */
export function takeEpoch(folder: string, record: ClaimRecord): boolean {
  const file = join(folder, epochFile(record.epoch));
  try {
    writeFileSync(file, textOf(record), { flag: "wx" });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    // An empty one, of a full disk, would pass for that of a process that may live.
    rmSync(file, { force: true });
    throw error;
  }
  if (epochsIn(folder).some((epoch) => epoch > record.epoch)) {
    rmSync(file, { force: true });
    return false;
  }
  for (const epoch of epochsIn(folder)) {
    const options = { force: true, recursive: true };
    if (epoch < record.epoch) rmSync(join(folder, epochFile(epoch)), options);
  }
  return true;
}

/**
 * The record of a claim as it stands; undefined where the claim is lost. One that somebody removed, with the
 * directory say, is made again where nobody else has the directory; the lock on the removed file is none.
 */
export function heldRecord(folder: string, claim: ClaimRecord): ClaimRecord | undefined {
  for (let looks = 0; looks < maxLooks; looks++) {
    const newest = foundIn(folder);
    if (newest === undefined) {
      const again = { ...claim, lockedDevice: null };
      mkdirSync(folder, { recursive: true });
      if (takeEpoch(folder, again)) return again;
    } else if (newest.epoch !== claim.epoch) return undefined;
    else if (newest.record !== undefined) {
      return newest.record.owner === claim.owner ? newest.record : undefined;
    }
    // Just being made again, by another thread of this process or by another process.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, lookAgainMs);
  }
  return undefined;
}

/** A record is there a moment after its file: 1 s in all. */
const maxLooks = 100;
const lookAgainMs = 10;

function foundIn(folder: string): FoundClaim | undefined {
  try {
    return newestClaim(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

/** Rewrites a record in place. */
export function rewriteRecord(folder: string, record: ClaimRecord): void {
  writeFileSync(join(folder, epochFile(record.epoch)), textOf(record), { flag: "r+" });
}

const textOf = (record: ClaimRecord): string =>
  `${JSON.stringify(record).padEnd(recordBytes - 1)}\n`;

function parseRecord(text: string): ClaimRecord | undefined {
  try {
    const parsed: unknown = JSON.parse(text);
    if (!isRecord(parsed)) return undefined;
    const { epoch, owner, host, pid, since, startTicks, domain } = parsed;
    const isWhole =
      [epoch, pid, startTicks ?? 0].every(Number.isSafeInteger) &&
      [owner, host, since, domain ?? ""].every((value) => typeof value === "string");
    if (!isWhole) return undefined;
    return { ...(parsed as unknown as ClaimRecord), fence: fenceIn(parsed["fence"]) };
  } catch {
    return undefined;
  }
}

/** Records of before there were queues have none. */
function fenceIn(given: unknown): JobFence | null {
  if (!isRecord(given)) return null;
  const { job, epoch } = given;
  return typeof job === "string" && Number.isSafeInteger(epoch)
    ? { job, epoch: epoch as number }
    : null;
}

/** A lock of the kernel on a claim's file. */
export interface FileLock {
  /** "busy": a process that lives holds it; "none": the file system or this platform has no locks. */
  readonly state: "held" | "busy" | "none";
  /** Number of the file's device, the same in all containers of a machine. */
  readonly device: number;
  readonly release: () => void;
}

export function tryLock(folder: string): FileLock {
  const path = join(folder, "lock");
  for (;;) {
    const file = openSync(path, "a+");
    let state: FileLock["state"];
    try {
      state = lockDescriptor(file);
      const { dev, ino } = fstatSync(file);
      const now = statSync(path, { throwIfNoEntry: false });
      if (now?.dev === dev && now.ino === ino) {
        return { state, device: dev, release: () => closeSync(file) };
      }
    } catch (error) {
      closeSync(file);
      throw error;
    }
    // Somebody removed it between the two.
    closeSync(file);
  }
}

interface NativeLocks {
  readonly tryLock: (file: number) => boolean;
}

let native: NativeLocks | null | undefined;

/** An open-file-description lock: of the kernel, whatever namespaces its processes are in, dropped when they end. */
function lockDescriptor(file: number): FileLock["state"] {
  native ??= loadNative();
  if (native === null) return "none";
  try {
    return native.tryLock(file) ? "held" : "busy";
  } catch {
    // No locks here: ENOLCK, EOPNOTSUPP, EINVAL, ENOSYS.
    return "none";
  }
}

function loadNative(): NativeLocks | null {
  try {
    return createRequire(import.meta.url)("fs-native-extensions") as NativeLocks;
  } catch {
    // Not built for this platform.
    return null;
  }
}
