// Names a process so that its death is noticed even when its number is used again.

import { readFileSync } from "node:fs";

/** "pid start-time"; the start time is 0 where there is no /proc. */
export function ownIdentity() {
  return `${process.pid} ${startTime(process.pid)}`;
}

/** Whether the process with this identity still runs here. */
export function isAlive(identity) {
  const [pidText, start] = identity.split(" ");
  const pid = Number(pidText);
  if (!Number.isInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (error.code === "ESRCH") return false;
  }
  const now = startTime(pid);
  if (now === null) return false;
  return start === undefined || start === "0" || now === "0" || now === start;
}

/** Null for a process that ended and that nobody has waited for: its number is still taken, its work is over. */
function startTime(pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The second field is the program's name in parentheses and may hold spaces; the third is the state,
    // the 22nd the start.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" ? null : (fields[19] ?? "0");
  } catch {
    return "0";
  }
}
