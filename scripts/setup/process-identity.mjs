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
  return start === undefined || start === "0" || now === "0" || now === start;
}

function startTime(pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The second field is the program's name in parentheses and may hold spaces; field 22 counts from there.
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? "0";
  } catch {
    return "0";
  }
}
