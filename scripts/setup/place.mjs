// Puts a directory in place whole or not at all: built under a temporary name beside it, then renamed.

import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { atExit } from "./cleanup.mjs";
import { withLock } from "./lock.mjs";
import { isAlive, ownIdentity } from "./process-identity.mjs";

/**
 * Makes `finalDir` exist, by `build` unless it is there already.
 *
 * @param {string} finalDir
 * @param {(partialDir: string) => Promise<void>} build fills the directory it is given
 * @returns {Promise<boolean>} whether it had to be built
 */
export async function placeDirectory(finalDir, build) {
  if (existsSync(finalDir)) return false;
  return withLock(`${finalDir}.lock`, async () => {
    removeAbandoned(finalDir);
    if (existsSync(finalDir)) return false;
    const [pid, start] = ownIdentity().split(" ");
    const partial = `${finalDir}.partial-${pid}-${start}-${randomBytes(4).toString("hex")}`;
    mkdirSync(partial, { recursive: true });
    const remove = () => rmSync(partial, { recursive: true, force: true, maxRetries: 5 });
    const leave = atExit(remove);
    try {
      await build(partial);
      rename(partial, finalDir);
    } finally {
      remove();
      leave();
    }
    return true;
  });
}

/** Whoever renames first wins; the other's copy is as good and goes. */
function rename(partial, finalDir) {
  try {
    renameSync(partial, finalDir);
  } catch (error) {
    if (!existsSync(finalDir)) throw error;
  }
}

/** A set-up killed outright leaves its partial directory; the next one clears it. */
function removeAbandoned(finalDir) {
  const parent = dirname(finalDir);
  const prefix = `${basename(finalDir)}.partial-`;
  for (const name of readdirSync(parent)) {
    if (!name.startsWith(prefix)) continue;
    const [pid, start] = name.slice(prefix.length).split("-");
    if (!isAlive(`${pid} ${start}`)) rmSync(join(parent, name), { recursive: true, force: true });
  }
}
