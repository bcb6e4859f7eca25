import { readdirSync, readFileSync } from "node:fs";

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
