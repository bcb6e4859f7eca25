import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import type { LockstepEvent } from "#lib/core/events";
import { packageRoot } from "#lib/core/paths";

/** How a process ended. */
export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** The last of what it said on standard error. */
  readonly stderr: string;
}

export interface Program {
  readonly pid: number;
  readonly child: ChildProcess;
  readonly exited: Promise<Exit>;
  readonly isOver: () => boolean;
}

const maxStderrChars = 8_000;
const preload = new URL("./preload.js", import.meta.url).href;

/** Starts `lockstep` in a process of its own that a director watches. */
export function startLockstep(
  args: readonly string[],
  options: {
    readonly directorSocket: string;
    readonly cacheDirectory: string;
    readonly onLine: (line: string) => void;
  },
): Program {
  const command = ["--import", preload, join(packageRoot, "bin/lockstep"), ...args];
  const child = spawn(process.execPath, command, {
    stdio: ["ignore", "pipe", "pipe"],
    env: {
      ...process.env,
      LOCKSTEP_CACHE: options.cacheDirectory,
      LOCKSTEP_CHAOS_SOCKET: options.directorSocket,
    },
  });
  let stderr = "";
  child.stderr.on("data", (text: Buffer) => {
    stderr = (stderr + text.toString()).slice(-maxStderrChars);
  });
  createInterface({ input: child.stdout }).on("line", options.onLine);
  let isOver = false;
  const exited = new Promise<Exit>((resolve) => {
    child.once("close", (code, signal) => {
      isOver = true;
      resolve({ code, signal, stderr });
    });
  });
  return { pid: child.pid ?? 0, child, exited, isOver: () => isOver };
}

/** How long a process may outlive the run that it is of. */
const maxOutliveMs = 20_000;

/** What still runs of a stage, and does not end soon. @param directory that its processes have in their environment */
export async function leftOver(directory: string): Promise<string[]> {
  for (const sinceMs = performance.now(); ; await delay(100)) {
    const alive = readdirSync("/proc").filter((pid) => belongsTo(pid, directory));
    if (alive.length === 0) return [];
    if (performance.now() - sinceMs > maxOutliveMs) {
      return alive.map((pid) => `left over: ${read(`/proc/${pid}/cmdline`).replaceAll("\0", " ")}`);
    }
  }
}

const belongsTo = (pid: string, directory: string): boolean =>
  /^\d+$/.test(pid) && read(`/proc/${pid}/environ`).includes(`LOCKSTEP_CHAOS_SOCKET=${directory}`);

function read(file: string): string {
  try {
    return readFileSync(file, "latin1");
  } catch {
    // It has ended meanwhile, or is somebody else's.
    return "";
  }
}

/** What a line tells, of a program with `--json-logs`; one that is killed may leave half a line. */
export function eventIn(line: string): LockstepEvent | undefined {
  try {
    return line.startsWith("{") ? (JSON.parse(line) as LockstepEvent) : undefined;
  } catch {
    return undefined;
  }
}
