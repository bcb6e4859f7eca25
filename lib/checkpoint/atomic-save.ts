import { randomBytes } from "node:crypto";
import { renameSync, rmSync } from "node:fs";
import { mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { isLockstepError, LockstepError } from "#lib/core/errors/index";
import { domainTag, stateOf, thisProcess } from "#lib/core/process-identity";
import { explainSystemError } from "#lib/core/system-error";
import { assertWritable, isGuarded } from "./write-guard.js";

/**
 * Names beside a final name while it is being changed, all hidden and of the form
 * `.NAME.KIND-PID.DOMAIN-RANDOM`, where DOMAIN stands for the machine and container in which PID holds:
 * - `tmp`: a directory being written; worthless once its writer is gone.
 * - `previous`: the old directory during the two renames of a replacement; the only copy in between.
 * - `removed`: a directory being deleted, renamed first so that nobody reads it half-deleted.
 */
type TransientKind = "tmp" | "previous" | "removed";
const transientPattern =
  /^\.(.+)\.(tmp|previous|removed)-(\d+)(?:\.([0-9a-f]{8}))?-([0-9a-f]{12})$/;
/** After this long a leftover goes even if its writer may exist: its id was used again, or holds elsewhere. */
const staleAfterMs = 24 * 3600 * 1000;

/** Transient paths of saves that run in this process. */
const inUse = new Set<string>();

/**
 * Makes `finalDir` appear whole or not at all: `write` fills a temporary directory beside it, every
 * file and directory in there is fsynced, and a rename puts it in place. An existing `finalDir` is
 * replaced only then. When `write` fails, the temporary directory is removed and what was saved
 * before is untouched. Leftovers of writers that were killed are removed first.
 *
 * One output directory belongs to one run at a time.
 *
 * @throws E_DISK_FULL; E_CHECKPOINT_WRITE for other errors of the file system; what `write` throws.
 */
export const saveAtomically = (
  finalDir: string,
  write: (temporaryDir: string) => Promise<void>,
): Promise<void> =>
  fillBeside(finalDir, write, async (temporary, final) => {
    await syncTree(temporary);
    await replaceDirectory(temporary, final);
  });

/**
 * Fills a temporary directory beside `finalDir`, which is removed in the end: what is written for another place.
 *
 * @throws as saveAtomically
 */
export const stageFiles = (
  finalDir: string,
  write: (temporaryDir: string) => Promise<void>,
): Promise<void> => fillBeside(finalDir, write, async () => {});

/** @param filled what becomes of the temporary directory; what is left of it is removed */
async function fillBeside(
  finalDir: string,
  write: (temporaryDir: string) => Promise<void>,
  filled: (temporaryDir: string, finalDir: string) => Promise<void>,
): Promise<void> {
  const final = resolve(finalDir);
  const parent = dirname(final);
  try {
    assertWritable(final);
    await mkdir(parent, { recursive: true });
    await recoverInterruptedSaves(parent);
    await withTransient(final, "tmp", async (temporary) => {
      await mkdir(temporary);
      await write(temporary);
      await filled(temporary, final);
    });
    await syncPath(parent);
  } catch (error) {
    // Who writes there instead may have removed what was half written.
    assertWritable(final);
    throw explainWriteError(error, finalDir);
  }
}

/**
 * Puts files into a directory that holds other things as well (the final model beside
 * `checkpoint-N/`): all are written and fsynced in a temporary directory inside it, then renamed one
 * by one, weights before configurations, so a reader that finds the new config finds its weights, and
 * `last`, which says that the others are there, at the end.
 */
export async function saveFilesAtomically(
  directory: string,
  write: (temporaryDir: string) => Promise<void>,
  last?: string,
): Promise<void> {
  const final = resolve(directory);
  try {
    assertWritable(final);
    await mkdir(final, { recursive: true });
    await recoverInterruptedSaves(final);
    await withTransient(join(final, "files"), "tmp", async (temporary) => {
      await mkdir(temporary);
      await write(temporary);
      await syncTree(temporary);
      await placeFiles(temporary, final, last);
    });
    await syncPath(final);
  } catch (error) {
    assertWritable(final);
    throw explainWriteError(error, directory);
  }
}

/** Moves what is in one directory into another, where files of other names stay. */
async function placeFiles(from: string, into: string, last?: string): Promise<void> {
  const rank = (name: string): number =>
    name === last ? 3 : name.endsWith(".safetensors") ? 0 : isConfigFile(name) ? 2 : 1;
  const names = (await readdir(from)).sort((a, b) => rank(a) - rank(b));
  for (const name of names) {
    const [source, target] = [join(from, name), join(into, name)];
    const isFolder = (await stat(source)).isDirectory();
    if (isFolder && (await exists(target))) {
      // A model's folder may hold files of somebody's own; of chat templates all that are there would be read.
      const items = await readdir(source, { withFileTypes: true });
      const holdsFolders = items.every((item) => item.isDirectory());
      if (holdsFolders || items.some((item) => isWeightsFile(item.name))) {
        await placeFiles(source, target);
        await syncPath(target);
        continue;
      }
      await removeDirectoryAtomically(target);
    }
    renameGuarded(source, target);
  }
  if (!names.some(isWeightsFile)) return;
  // Shards of an earlier save, or a single file where there are shards now, would be read too; an
  // adapter's configuration beside a model, or a model's beside an adapter, would be believed.
  for (const name of await readdir(into)) {
    const isOfModel = isWeightsFile(name) || isConfigFile(name);
    if (isOfModel && !names.includes(name)) {
      assertWritable(into);
      await rm(join(into, name));
    }
  }
}

/** Nothing of this process runs in between, so that one that is stopped has hardly asked before it is. */
function renameGuarded(from: string, to: string): void {
  assertWritable(to);
  renameSync(from, to);
}

export const isWeightsFile = (name: string): boolean =>
  /^(adapter_)?model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?$/.test(name);

/** What says of which kind the weights beside it are. */
export const isConfigFile = (name: string): boolean =>
  ["config.json", "adapter_config.json", "classifier_config.json"].includes(name);

/** Deletes a directory so that it is never seen half-deleted. */
export async function removeDirectoryAtomically(directory: string): Promise<void> {
  const final = resolve(directory);
  assertWritable(final);
  await withTransient(final, "removed", async (transient) => rename(final, transient));
}

/**
 * Cleans up after writers that were killed: deletes their temporary directories, and puts a
 * directory back whose replacement was cut between its two renames. Called by every save; call it
 * before looking for checkpoints to resume from.
 */
export async function recoverInterruptedSaves(parent: string): Promise<void> {
  for (const name of await readdir(parent)) {
    const match = transientPattern.exec(name);
    const path = join(resolve(parent), name);
    if (match === null || !(await isAbandoned(path, Number(match[3]), match[4]))) continue;
    const final = join(resolve(parent), match[1] as string);
    assertWritable(final);
    if (match[2] === "previous" && !(await exists(final))) await rename(path, final);
    else await rm(path, { recursive: true, force: true });
  }
}

async function isAbandoned(
  path: string,
  pid: number,
  domain: string | undefined,
): Promise<boolean> {
  if (inUse.has(path)) return false;
  // Where no other process writes, what is not in use is a leftover.
  if (isGuarded(path)) return true;
  // Names of earlier versions have no domain.
  if (domain === undefined || domain === domainTag()) {
    // Also of an earlier process with this one's id.
    if (pid === process.pid) return true;
    if (stateOf({ ...thisProcess(), pid, startTicks: null }) === "gone") return true;
  }
  const age = await stat(path).then(
    (stats) => Date.now() - stats.mtimeMs,
    () => 0,
  );
  return age > staleAfterMs;
}

/** Runs `action` with a transient path beside `final` that is removed at the end, come what may. */
async function withTransient(
  final: string,
  kind: "tmp" | "removed",
  action: (transient: string) => Promise<void>,
): Promise<void> {
  const transient = transientPath(final, kind);
  inUse.add(transient);
  try {
    await action(transient);
  } finally {
    await rm(transient, { recursive: true, force: true });
    inUse.delete(transient);
  }
}

/**
 * Removes what this process has half written, without waiting: for a process that ends amid a save. What a replacement
 * put aside stays for the next save.
 */
export function removeUnfinishedSaves(): void {
  for (const path of inUse) {
    if (transientPattern.exec(basename(path))?.[2] === "previous") continue;
    try {
      assertWritable(path);
      rmSync(path, { recursive: true, force: true });
    } catch {
      // The next save finds it.
    }
  }
}

/** The old directory is deleted only when the new one has its name. */
async function replaceDirectory(temporary: string, final: string): Promise<void> {
  const isNew = !(await exists(final));
  if (isNew) return renameGuarded(temporary, final);
  assertWritable(final);
  const previous = transientPath(final, "previous");
  inUse.add(previous);
  try {
    await rename(final, previous);
    try {
      await rename(temporary, final);
    } catch (error) {
      await rename(previous, final);
      throw error;
    }
    await rm(previous, { recursive: true, force: true });
  } finally {
    inUse.delete(previous);
  }
}

function transientPath(final: string, kind: TransientKind): string {
  const suffix = `${kind}-${process.pid}.${domainTag()}-${randomBytes(6).toString("hex")}`;
  return join(dirname(final), `.${basename(final)}.${suffix}`);
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

async function syncTree(directory: string): Promise<void> {
  for (const item of await readdir(directory, { withFileTypes: true })) {
    const path = join(directory, item.name);
    if (item.isDirectory()) await syncTree(path);
    else if (item.isFile()) await syncPath(path);
  }
  await syncPath(directory);
}

async function syncPath(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Turns errors of the file system into the catalogue's; others pass. */
export function explainWriteError(error: unknown, file: string): unknown {
  const explained = explainSystemError(error, file);
  if (isLockstepError(explained) || !(error instanceof Error)) return explained;
  const { code, path } = error as NodeJS.ErrnoException;
  if (typeof code === "string" && /^E[A-Z0-9]+$/.test(code)) {
    return new LockstepError(
      "E_CHECKPOINT_WRITE",
      { file: path ?? file, problem: error.message },
      { cause: error },
    );
  }
  return error;
}
