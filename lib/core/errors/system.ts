import { hostPort } from "#lib/core/address";
import { entry } from "./define.js";

/** Failures of the machine around the program: files, ports, disks, missing programs. */
export const systemErrors = {
  E_FILE_NOT_FOUND: entry<{ file: string; what: string }>(
    (d) => `The ${d.what} ${d.file} does not exist.`,
    "Check the path; relative paths start at the current directory.",
  ),
  E_FILE_UNREADABLE: entry<{ file: string; what: string; problem: string }>(
    (d) => `The ${d.what} ${d.file} cannot be read: ${d.problem}.`,
    "Name a regular file: what comes out of a pipe, a device or another program is written to a file first.",
  ),
  E_DISK_FULL: entry<{ file: string; isQuota?: boolean }>(
    (d) =>
      `${d.isQuota === true ? "The quota of disk space is used up" : "No space is left on the device"} while writing ${d.file}.`,
    "Free some space or choose another directory; what was saved before is whole.",
    { retryable: true },
  ),
  E_TOO_MANY_FILES: entry<{ what: string; isMachine: boolean }>(
    (d) =>
      `${d.what} cannot be opened: ${d.isMachine ? "the machine" : "this process"} has as many files and connections open as it may.`,
    "Raise the limit (ulimit -n, LimitNOFILE of systemd; fs.file-max of the machine), or look for what holds so many connections to this process.",
    { retryable: true },
  ),
  E_PROCESS_START: entry<{ program: string; problem: string }>(
    (d) => `The process of ${d.program} cannot be started: ${d.problem}.`,
    "Raise the limits of processes, memory and open files (ulimit -u, ulimit -n, the container's), or end what fills them.",
    { retryable: true },
  ),
  E_PORT_IN_USE: entry<{ host: string; port: number; what: string }>(
    (d) => `The ${d.what} cannot listen on ${hostPort(d.host, d.port)}: the port is in use.`,
    "Stop the program that holds the port, or choose another one (0 takes any free port).",
    { retryable: true },
  ),
  E_USAGE: entry<{ command: string; problem: string }>(
    (d) => `lockstep ${d.command}: ${d.problem}${d.problem.endsWith("?") ? "" : "."}`,
    "`lockstep --help` lists the commands, `lockstep COMMAND --help` the arguments of one.",
  ),
  E_ARGUMENT: entry<{ argument: string; expected: string; got: string }>(
    (d) => `${d.argument} must be ${d.expected}, got ${d.got}.`,
    "Correct the program's call; docs/library.md and the declarations tell what each function takes.",
  ),
  E_CLOSED: entry<{ what: string }>(
    (d) => `The ${d.what} is closed.`,
    "Open it again, or close it after its last use.",
  ),
  E_COORDINATOR_DIED: entry<{ restarts: number; reason: string; directory: string }>(
    (d) =>
      `The coordinator of the run in ${d.directory} ended (${d.reason}), as it did before each of ${d.restarts} restarts, without a group that was finished in between.`,
    "Look at what ended it: the kernel's log names processes that were killed for want of memory. The run goes on from its last checkpoint with resume_from_checkpoint: auto.",
  ),
  E_WORKERS_EXHAUSTED: entry<{ restarts: number; reason: string; logFile: string }>(
    (d) =>
      `No worker is left: the last one ended (${d.reason}) after ${d.restarts} restart(s). Its log is ${d.logFile}.`,
    "Read the end of that log, shown above; what was saved before is whole.",
  ),
  E_NO_CHECKPOINT: entry<{ directory: string; problem: string }>(
    (d) => `There is nothing to resume from in ${d.directory}: ${d.problem}.`,
    "Give the path of a checkpoint-N directory that has a lockstep/ folder; resume_from_checkpoint: auto goes on from a checkpoint if there is one and else starts anew.",
  ),
};
