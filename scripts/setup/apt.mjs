// Debian's package manager, used where it may be.

import { SetupError } from "./console.mjs";
import { findProgram, run, succeeds } from "./run.mjs";

let listsAreFresh = false;

/** The command prefix that gives root's rights: nothing for root, sudo where it asks no password. */
function rootPrefix() {
  if (process.getuid?.() === 0) return [];
  if (findProgram("sudo") !== null && succeeds("sudo", ["-n", "true"])) return ["sudo", "-n"];
  throw new SetupError("not root and no password-less sudo");
}

async function asRoot(command, args) {
  const [program, ...rest] = [...rootPrefix(), command, ...args];
  return run(program, rest, { env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" } });
}

/** Installs a package into the system. */
export async function aptInstall(name) {
  requireApt();
  await refreshLists(name);
  const options = ["-y", "-q", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120"];
  await asRoot("apt-get", ["install", ...options, name]);
}

/** Downloads a package's file into a directory and unpacks it there; the system stays as it is. */
export async function aptUnpack(name, directory) {
  requireApt();
  await refreshLists(name);
  await run("apt-get", ["download", "-q", name], { cwd: directory });
  await run("sh", ["-c", 'dpkg-deb -x "$1"_*.deb . && rm "$1"_*.deb', "sh", name], {
    cwd: directory,
  });
}

function requireApt() {
  if (findProgram("apt-get") === null) throw new SetupError("no apt-get on this machine");
}

/** A container image ships without lists; then, and only then, root is needed to fetch them. */
async function refreshLists(name) {
  if (listsAreFresh || succeeds("apt-cache", ["show", name])) return;
  await asRoot("apt-get", ["update", "-q"]);
  listsAreFresh = true;
}
