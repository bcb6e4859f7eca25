// One set-up at a time per directory. The lock is a file that names its holder; a holder that died
// leaves a file which the next one takes over.
//
// The lock only saves work. What it protects is put in place by a rename, so two holders (possible where
// two containers share a cache and cannot see each other's processes) cost time and break nothing.

import { randomBytes } from "node:crypto";
import { linkSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { atExit } from "./cleanup.mjs";
import { say } from "./console.mjs";
import { isAlive, ownIdentity } from "./process-identity.mjs";

const POLL_INTERVAL_MS = 200;

/**
 * Runs `body` while holding the lock at `lockFile`.
 *
 * @template T
 * @param {string} lockFile
 * @param {() => Promise<T>} body
 * @returns {Promise<T>}
 */
export async function withLock(lockFile, body) {
  mkdirSync(dirname(lockFile), { recursive: true });
  const mine = ownIdentity();
  let announced = false;
  while (!tryAcquire(lockFile, mine)) {
    const holder = readHolder(lockFile);
    if (holder !== null && !isAlive(holder)) {
      takeAway(lockFile, holder);
      continue;
    }
    if (!announced && holder !== null) {
      say(`waiting for another set-up (process ${holder.split(" ")[0]})`);
      announced = true;
    }
    await delay(POLL_INTERVAL_MS);
  }
  const release = () => {
    if (readHolder(lockFile) === mine) rmSync(lockFile, { force: true });
  };
  const leave = atExit(release);
  try {
    return await body();
  } finally {
    release();
    leave();
  }
}

/** A link appears with its content or not at all, so no reader sees an empty lock. */
function tryAcquire(lockFile, identity) {
  const candidate = `${lockFile}.${process.pid}-${randomBytes(4).toString("hex")}`;
  writeFileSync(candidate, identity);
  try {
    linkSync(candidate, lockFile);
    return true;
  } catch (error) {
    if (error.code === "EEXIST") return false;
    throw error;
  } finally {
    rmSync(candidate, { force: true });
  }
}

function readHolder(lockFile) {
  try {
    return readFileSync(lockFile, "utf8");
  } catch (error) {
    if (error.code === "ENOENT") return null;
    throw error;
  }
}

/** Removes a dead holder's lock, and puts it back if by then it was somebody else's. */
function takeAway(lockFile, deadHolder) {
  const aside = `${lockFile}.dead-${process.pid}-${randomBytes(4).toString("hex")}`;
  try {
    renameSync(lockFile, aside);
  } catch (error) {
    if (error.code === "ENOENT") return;
    throw error;
  }
  try {
    if (readFileSync(aside, "utf8") !== deadHolder) linkSync(aside, lockFile);
  } catch (error) {
    if (error.code !== "EEXIST") throw error;
  } finally {
    rmSync(aside, { force: true });
  }
}
