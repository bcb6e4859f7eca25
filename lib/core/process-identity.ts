import { createHash, randomBytes } from "node:crypto";
import { readFileSync, readlinkSync } from "node:fs";

/**
 * Which process is meant, beyond its id: ids begin anew with each boot and in each container, and are used
 * again.
 */
export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks between the boot and the process's start; null where the kernel does not tell. */
  readonly startTicks: number | null;
  /** Boot of the kernel and namespaces in which `pid` and `startTicks` hold; null where the kernel does not tell. */
  readonly domain: string | null;
}

type ProcessState = "running" | "gone" | "unknown";

let own: ProcessIdentity | undefined;
let ownBoot: string | null | undefined;

/** One boot of one kernel, which containers of a machine share; null where the kernel does not tell. */
export function bootId(): string | null {
  ownBoot ??= attempt(() => readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()) ?? null;
  return ownBoot;
}

export function thisProcess(): ProcessIdentity {
  if (own?.pid === process.pid) return own;
  const boot = bootId();
  // Of another pid namespace than this process' own, /proc tells of other processes.
  const isOwnProc = attempt(() => readlinkSync("/proc/self")) === String(process.pid);
  const namespaces = attempt(() =>
    ["pid", "time"].map((name) => attempt(() => readlinkSync(`/proc/self/ns/${name}`)) ?? "-"),
  );
  const domain =
    isOwnProc && boot !== null && namespaces?.[0] !== "-"
      ? [boot, ...(namespaces ?? [])].join(" ")
      : null;
  own = { pid: process.pid, startTicks: statusOf(process.pid)?.startTicks ?? null, domain };
  return own;
}

/** Whether a process still runs; "unknown" for one of another machine or container. */
export function stateOf({ pid, startTicks, domain }: ProcessIdentity): ProcessState {
  if (domain === null || domain !== thisProcess().domain) return "unknown";
  const status = statusOf(pid);
  if (status === undefined) return "gone";
  // What has ended and waits for its parent has let go of everything.
  if (status.state === "Z" || status.state === "X") return "gone";
  return startTicks === null || startTicks === status.startTicks ? "running" : "gone";
}

let ownTag: string | undefined;

/** Eight hexadecimal digits that stand for this process' domain in names of files; random where it has none. */
export function domainTag(): string {
  const { domain } = thisProcess();
  ownTag ??=
    domain === null
      ? randomBytes(4).toString("hex")
      : createHash("sha256").update(domain).digest("hex").slice(0, 8);
  return ownTag;
}

/** Of /proc/PID/stat; the name in it may hold blanks and brackets. */
function statusOf(
  pid: number,
): { readonly state: string; readonly startTicks: number } | undefined {
  const text = attempt(() => readFileSync(`/proc/${pid}/stat`, "utf8"));
  if (text === undefined) return undefined;
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const [state = "", startTicks] = [fields[0], Number(fields[19])];
  return Number.isSafeInteger(startTicks) ? { state, startTicks } : undefined;
}

function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
