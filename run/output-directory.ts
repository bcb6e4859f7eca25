import { access, constants, mkdir, realpath, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { explainWriteError } from "#lib/checkpoint/atomic-save";
import { claimFolder } from "#lib/checkpoint/claim-folder";
import { guardWrites } from "#lib/checkpoint/write-guard";
import { LockstepError } from "#lib/core/errors/index";
import { bootId, stateOf } from "#lib/core/process-identity";
import {
  type ClaimRecord,
  type FileLock,
  type FoundClaim,
  heldRecord,
  newestClaim,
  newRecord,
  rewriteRecord,
  takeEpoch,
  tryLock,
} from "./claim-files.js";
import type { JobFence } from "./job-fence.js";
import { beatEvery, startHeartbeat } from "./claim-heartbeat.js";

/** An owner says that it lives this often. */
const defaultBeatMs = 2_000;
/** An owner of whom nothing else can be known counts as gone after so long without a sign of life. */
const defaultSilentMs = 30_000;
/** One for which a standby is there counts as gone after this: with what follows, less than 10 s. */
const standbySilentMs = 7_000;
/** How often a standby looks. */
const standbyLookMs = 250;

interface ClaimOptions {
  /** Called once, when another process took the directory because this one was silent. */
  readonly onLost?: (error: LockstepError) => void;
  /** A line for a person who waits. */
  readonly onWaiting?: (text: string) => void;
  /** Ends the waiting. */
  readonly signal?: AbortSignal;
  /** @default 2000 */
  readonly beatMs?: number;
  /** @default 30000 */
  readonly silentMs?: number;
  /**
   * Waits for as long as another process owns the directory, and takes it when that is gone or was silent for a while,
   * even where it may only have been stopped. @default false
   */
  readonly standby?: boolean;
  /**
   * Who leads was decided elsewhere, and it is this process: it takes the directory from whoever has it. The claim's
   * epoch is this one at least.
   */
  readonly decidedEpoch?: number;
  /** Which giving of a queued job the claim is for: a later one of the same job takes it over, whoever lives. */
  readonly fence?: JobFence | undefined;
  /** @default the kernel's, where the file system has them */
  readonly tryLock?: (folder: string) => FileLock;
}

/** A directory that this process alone writes into. */
export interface OutputClaim {
  /** Number of the claim: rises with each one of the directory. */
  readonly epoch: number;
  /** Gives the directory up; the epoch is remembered. */
  readonly release: () => Promise<void>;
}

/**
 * Makes `output_dir` where it is missing and keeps it for this process, before anything costs time. The
 * claim is in the directory itself, so it holds between containers and machines that share it: by a lock
 * of the kernel where the file system has them, and by a record that its owner keeps rewriting.
 *
 * An owner that is known to have ended is followed at once, one of which nothing is known after
 * `silentMs` without a sign of life, by this process' own clock. Where an owner was only stopped, its saves
 * are refused with E_OUTPUT_DIR_LOST when it goes on (`lib/checkpoint/write-guard.ts`).
 *
 * @throws E_OUTPUT_DIR_IN_USE; E_CHECKPOINT_WRITE and E_DISK_FULL where it cannot be made or written;
 *   the signal's reason
 */
export async function claimOutputDirectory(
  directory: string,
  options: ClaimOptions = {},
): Promise<OutputClaim> {
  try {
    await makeDirectory(directory);
    const path = await realpath(directory);
    await access(path, constants.W_OK | constants.X_OK);
    const folder = join(path, claimFolder);
    await mkdir(folder, { recursive: true });
    const openLock = options.tryLock ?? tryLock;
    const claim = { directory, paths: [path, resolve(directory)], folder };
    while (options.standby === true) {
      const epoch = await untilAbandoned(directory, folder, openLock, options);
      const lock = openLock(folder);
      const record = newRecord(epoch + 1, deviceOf(lock), options.fence);
      // Of several that stand by one is quicker.
      if (takeEpoch(folder, record)) return hold({ ...claim, record, lock }, options);
      lock.release();
    }
    const lock = openLock(folder);
    try {
      const record = await takeNext(directory, folder, lock, options);
      return hold({ ...claim, record, lock }, options);
    } catch (error) {
      lock.release();
      throw error;
    }
  } catch (error) {
    throw explainWriteError(error, directory);
  }
}

async function takeNext(
  directory: string,
  folder: string,
  lock: FileLock,
  options: ClaimOptions,
): Promise<ClaimRecord> {
  for (;;) {
    const newest = newestClaim(folder);
    const { decidedEpoch = 0 } = options;
    if (decidedEpoch === 0 && !isFencedOff(directory, newest, options.fence)) {
      if (lock.state === "busy") throw inUse(directory, newest);
      if (newest !== undefined && !isOver(directory, newest, lock)) {
        await untilSilent(directory, folder, newest, options);
      }
    }
    const epoch = Math.max((newest?.epoch ?? 0) + 1, decidedEpoch);
    const record = newRecord(epoch, deviceOf(lock), options.fence);
    if (takeEpoch(folder, record)) return record;
  }
}

const deviceOf = (lock: FileLock): number | null => (lock.state === "held" ? lock.device : null);

/**
 * Waits until nobody owns a directory, or its owner has given no sign of life for `standbySilentMs`.
 *
 * @returns the epoch of the last owner, 0 where there was none
 */
async function untilAbandoned(
  directory: string,
  folder: string,
  openLock: (folder: string) => FileLock,
  { onWaiting, signal }: ClaimOptions,
): Promise<number> {
  let seen = "";
  let toldOf: number | undefined;
  let [silentForMs, lookedAtMs] = [0, performance.now()];
  for (;;) {
    const found = newestClaim(folder);
    if (found === undefined || isGone(found, folder, openLock)) return found?.epoch ?? 0;
    const nowMs = performance.now();
    // A process that was stopped itself has not looked meanwhile.
    silentForMs += Math.min(nowMs - lookedAtMs, 4 * standbyLookMs);
    lookedAtMs = nowMs;
    const now = `${found.epoch} ${found.text}`;
    if (now !== seen) silentForMs = 0;
    seen = now;
    if (silentForMs >= standbySilentMs) return found.epoch;
    if (toldOf !== found.epoch) {
      toldOf = found.epoch;
      onWaiting?.(
        `stands by: ${directory} is that of ${describe(found)}; it is taken over when that ends, or is silent for ${standbySilentMs / 1000} s`,
      );
    }
    await delay(standbyLookMs, undefined, signal === undefined ? {} : { signal });
  }
}

/** Whether an owner is known to have ended. */
function isGone(
  found: FoundClaim,
  folder: string,
  openLock: (folder: string) => FileLock,
): boolean {
  const { record } = found;
  if (record === undefined) return false;
  if (record.isReleased) return true;
  const state = stateOf(record);
  if (state !== "unknown" || record.bootId !== bootId()) return state === "gone";
  // One of another container of this machine.
  const lock = openLock(folder);
  lock.release();
  return lock.state === "held" && record.lockedDevice === lock.device;
}

/**
 * Whether the owner's job was given to this process since: the queue has decided, so that it need not be gone. It is
 * refused every save from now on.
 *
 * @throws E_JOB_TAKEN where it is this process that has lost the job
 */
function isFencedOff(
  directory: string,
  newest: FoundClaim | undefined,
  fence: JobFence | undefined,
): boolean {
  const before = newest?.record?.fence ?? undefined;
  if (before === undefined || before.job !== fence?.job) return false;
  if (before.epoch > fence.epoch) {
    throw new LockstepError("E_JOB_TAKEN", { job: fence.job, directory });
  }
  return before.epoch < fence.epoch;
}

/**
 * Whether an owner is known to be gone.
 * @throws E_OUTPUT_DIR_IN_USE where it is known to live
 */
function isOver(directory: string, found: FoundClaim, lock: FileLock): boolean {
  const { record } = found;
  if (record === undefined) return false;
  if (record.isReleased) return true;
  // One kernel has one lock on the file: the owner had it and this process has it, or the directory is a
  // copy of another one that still has its owner.
  const isOfThisKernel = record.bootId !== null && record.bootId === bootId();
  const hadLock = record.lockedDevice === lock.device;
  if (isOfThisKernel && lock.state === "held" && hadLock) return true;
  const state = stateOf(record);
  if (state === "running") throw inUse(directory, found);
  return state === "gone";
}

/** Waits until an owner has given no sign of life for long enough. @throws E_OUTPUT_DIR_IN_USE at the first one */
async function untilSilent(
  directory: string,
  folder: string,
  found: FoundClaim,
  { beatMs = defaultBeatMs, silentMs = defaultSilentMs, onWaiting, signal }: ClaimOptions,
): Promise<void> {
  onWaiting?.(
    `${directory} was claimed by ${describe(found)}, of whom nothing is known: this run begins if there is no sign of life for ${silentMs / 1000} s`,
  );
  let [silentForMs, lookedAtMs] = [0, performance.now()];
  while (silentForMs < silentMs) {
    await delay(beatMs / 2, undefined, signal === undefined ? {} : { signal });
    const nowMs = performance.now();
    // A process that was stopped itself, perhaps with the owner, has not looked meanwhile.
    silentForMs += Math.min(nowMs - lookedAtMs, beatMs);
    lookedAtMs = nowMs;
    const now = newestClaim(folder);
    if (now === undefined || now.record?.isReleased === true) return;
    if (now.epoch !== found.epoch || now.text !== found.text) throw inUse(directory, now);
  }
}

/** Keeps a claim alive, and every save of this process in the directory under it. */
function hold(
  claim: {
    readonly directory: string;
    readonly paths: readonly string[];
    readonly folder: string;
    readonly record: ClaimRecord;
    readonly lock: FileLock;
  },
  { onLost, beatMs = defaultBeatMs }: ClaimOptions,
): OutputClaim {
  const { directory, paths, folder, record, lock } = claim;
  let lost: LockstepError | undefined;
  const lose = (): LockstepError => {
    if (lost !== undefined) return lost;
    const by = describe(attempt(() => newestClaim(folder)));
    lost = new LockstepError("E_OUTPUT_DIR_LOST", { directory, by });
    onLost?.(lost);
    return lost;
  };
  const endGuard = guardWrites(paths, () => {
    if (lost !== undefined) throw lost;
    let held: ClaimRecord | undefined;
    try {
      held = heldRecord(folder, record);
    } catch (error) {
      throw explainWriteError(error, directory);
    }
    if (held === undefined) throw lose();
  });
  const heartbeat = startHeartbeat({ folder, record, beatMs });
  // The claim alone must not keep the process alive.
  heartbeat.unref();
  heartbeat.on("message", lose);
  let substitute: NodeJS.Timeout | undefined;
  heartbeat.on("error", () => {
    // No thread could be had, for want of memory say: better signs of life between two calls than none.
    substitute = beatEvery({ folder, record, beatMs }, lose).unref();
  });
  return {
    epoch: record.epoch,
    release: async () => {
      await heartbeat.terminate();
      clearInterval(substitute);
      try {
        const held = lost === undefined ? heldRecord(folder, record) : undefined;
        if (held !== undefined) rewriteRecord(folder, { ...held, isReleased: true });
      } catch {
        // The next owner finds that this process is gone.
      }
      endGuard();
      lock.release();
    },
  };
}

const inUse = (directory: string, found: FoundClaim | undefined): LockstepError =>
  new LockstepError("E_OUTPUT_DIR_IN_USE", { directory, by: describe(found) });

/** For a person. */
function describe(found: FoundClaim | undefined): string {
  if (found?.record === undefined) return "a process that did not tell its name";
  const { host, pid, since } = found.record;
  return `process ${pid} on ${host}, which claimed it at ${since}`;
}

function attempt<T>(action: () => T): T | undefined {
  try {
    return action();
  } catch {
    return undefined;
  }
}

/**
 * Makes a directory and those above it. Node's own recursive mkdir never ends where a file system has a
 * parent and makes nothing in it, as /proc.
 */
async function makeDirectory(directory: string): Promise<void> {
  const make = async (path: string): Promise<string | undefined> => {
    try {
      await mkdir(path);
      return undefined;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "EEXIST" && (await stat(path)).isDirectory()) return undefined;
      if (code === "ENOENT") return code;
      throw error;
    }
  };
  const path = resolve(directory);
  if ((await make(path)) === undefined) return;
  if (dirname(path) !== path) await makeDirectory(dirname(path));
  await mkdir(path);
}
