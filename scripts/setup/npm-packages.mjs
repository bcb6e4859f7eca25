// The npm dependencies, exactly as the lock file names them.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { say } from "./console.mjs";
import { run } from "./run.mjs";

/** Installs what the lock file names unless node_modules holds it already. */
export async function installNpmPackages(root) {
  if (matchesLockFile(root)) return;
  say("installing npm packages");
  await run("npm", ["ci", "--no-audit", "--no-fund"], { cwd: root });
}

/**
 * Whether node_modules is what the lock file says, by npm's own record of it. npm writes that record
 * last, so an interrupted install has none.
 */
export function matchesLockFile(root) {
  const wanted = readLock(join(root, "package-lock.json"));
  const installed = readLock(join(root, "node_modules", ".package-lock.json"));
  if (wanted === null || installed === null) return false;
  for (const [path, entry] of Object.entries(wanted)) {
    if (path === "") continue;
    const present = installed[path];
    // Optional packages for other platforms are named by the lock file and never installed.
    if (present === undefined && entry.optional === true && entry.os !== undefined) continue;
    if (present?.version !== entry.version || present?.integrity !== entry.integrity) return false;
  }
  return Object.keys(installed).every((path) => path in wanted);
}

/** The version and integrity that the lock file pins for a package. */
export function lockedPackage(root, name) {
  const entry = readLock(join(root, "package-lock.json"))?.[`node_modules/${name}`];
  if (entry === undefined) throw new Error(`${name} is not in package-lock.json`);
  return { version: entry.version, integrity: entry.integrity };
}

function readLock(path) {
  try {
    return JSON.parse(readFileSync(path, "utf8")).packages;
  } catch (error) {
    if (error.code === "ENOENT" || error instanceof SyntaxError) return null;
    throw error;
  }
}
