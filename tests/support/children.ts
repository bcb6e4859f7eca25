import type { ChildProcess } from "node:child_process";
import { after } from "node:test";
import { descendantsOf } from "./processes.js";

// Processes of a test file that still run when all of its tests have ended are killed, with what they started: a
// test that fails in the middle leaves some, and the file would not end before they do.

const running = new Set<ChildProcess>();

after(() => {
  for (const { pid } of running) {
    if (pid === undefined) continue;
    for (const each of [...descendantsOf(pid), pid]) kill(each);
  }
});

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended since.
  }
}

/** The same process, which does not outlive the tests of its file. */
export function ownChild<T extends ChildProcess>(child: T): T {
  running.add(child);
  child.once("exit", () => running.delete(child));
  return child;
}
