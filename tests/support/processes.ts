import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";

/** Processes that a process started and that still run, and those that they started. */
export function descendantsOf(pid: number): number[] {
  const children = readdirSync("/proc")
    .map(Number)
    .filter((candidate) => Number.isInteger(candidate) && parentOf(candidate) === pid);
  return children.flatMap((child) => [child, ...descendantsOf(child)]);
}

/** Sends a signal to a process and to all that it started, as a batch system does. */
export function signalAll(pid: number, signal: NodeJS.Signals): void {
  for (const each of [pid, ...descendantsOf(pid)]) process.kill(each, signal);
}

function parentOf(pid: number): number | undefined {
  try {
    // The name before it, in parentheses, may hold blanks.
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)?.split(" ");
    return Number(fields?.[1]);
  } catch {
    return undefined;
  }
}

/** TCP ports of IPv4 on which a process listens. */
export function listeningPorts(pid: number): number[] {
  const inodes = new Set(
    readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
      try {
        return /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1] ?? [];
      } catch {
        // It was closed since.
        return [];
      }
    }),
  );
  return readFileSync("/proc/net/tcp", "utf8")
    .trimEnd()
    .split("\n")
    .slice(1)
    .map((line) => line.trim().split(/\s+/))
    .filter(([, , , state, , , , , , inode = ""]) => state === listenState && inodes.has(inode))
    .map(([, address = ""]) => Number.parseInt(address.split(":")[1] ?? "", 16));
}

/** Of /proc/net/tcp. */
const listenState = "0A";

/** Coordinators that a supervised `lockstep train` started. */
export const coordinatorsOf = (pid: number): number[] =>
  descendantsOf(pid).filter((child) => {
    const words = existsSync(`/proc/${child}/cmdline`)
      ? readFileSync(`/proc/${child}/cmdline`, "utf8").split("\0")
      : [];
    return words.includes("train");
  });

/** The only one. */
export function coordinatorOf(pid: number): number {
  const found = coordinatorsOf(pid);
  assert.equal(found.length, 1, `coordinators of ${pid}: ${found.join(", ")}`);
  return found[0] as number;
}
