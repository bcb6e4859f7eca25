import { readFileSync, readlinkSync } from "node:fs";
import { basename } from "node:path";

const shells: ReadonlySet<string> = new Set(["sh", "bash", "dash", "zsh", "ksh", "ash"]);

/**
 * Whether whoever started this process wants it to live on when the terminal closes. Node gives every signal
 * its default action back at its start, so its own mask no longer knows: it was started by `nohup`, or by
 * a shell that ignores SIGHUP itself (`trap '' HUP`).
 */
export function ignoresHangup(): boolean {
  return startedByNohup() || ignoredByShell(process.ppid);
}

function startedByNohup(): boolean {
  // Shells name the program there that they ran.
  if (basename(process.env["_"] ?? "") === "nohup") return true;
  // GNU's nohup opens /dev/null for writing as standard input, so that reading from it fails.
  return (
    attempt(() => readlinkSync("/proc/self/fd/0")) === "/dev/null" &&
    (numberIn("/proc/self/fdinfo/0", /^flags:\s*([0-7]+)/m, 8) & 3) === 1
  );
}

function ignoredByShell(pid: number): boolean {
  const name = attempt(() => readFileSync(`/proc/${pid}/comm`, "utf8"))?.trim();
  if (name === undefined || !shells.has(name)) return false;
  // The last digit's lowest bit is signal 1, SIGHUP.
  return (numberIn(`/proc/${pid}/status`, /^SigIgn:\s*[0-9a-f]*([0-9a-f])$/m, 16) & 1) === 1;
}

/** 0 where the file or the number is not there. */
function numberIn(file: string, pattern: RegExp, radix: number): number {
  const digits = pattern.exec(attempt(() => readFileSync(file, "utf8")) ?? "")?.[1];
  return digits === undefined ? 0 : Number.parseInt(digits, radix);
}

function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
