import { readFileSync } from "node:fs";

/** Peak resident memory of a process so far, bytes: VmHWM, which a program's start sets back. */
export function peakResidentBytes(pid: number | "self" = "self"): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
}
