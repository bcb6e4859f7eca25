import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, mkdirSync, openSync, writeSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { LockstepError } from "#lib/core/errors/index";
import { packageRoot } from "#lib/core/paths";
import type { MemoryNeed } from "./memory-lines.js";

interface SupervisorOptions {
  readonly numWorkers: number;
  /** What they are: the command that is started. @default "worker" */
  readonly role?: "worker" | "reducer";
  /** Arguments of the command that all have. */
  readonly workerArgs: readonly string[];
  /** Those of one alone. @default the name of a worker */
  readonly ownArgs?: (index: number) => readonly string[];
  /** Environment of worker `index` beside this process' own. */
  readonly environment: (index: number) => Readonly<Record<string, string>>;
  readonly logDirectory: string;
  /** Of one worker, without a finished group in between. */
  readonly maxRestarts: number;
  /** One that ran for so long counts its restarts anew. @default none does, but those that finish groups */
  readonly steadyMs?: number;
  /** A log cannot be opened or written; its worker runs all the same, and says nothing where it has none. */
  readonly onLogFailure: (logFile: string, error: unknown) => void;
  /** A worker process ended before the run did. */
  readonly onExit: (exit: WorkerExit) => void;
  /** A worker said where its metrics are. */
  readonly onMetrics?: (index: number, address: string) => void;
  /** A worker said what memory it is about to need. */
  readonly onMemory?: (need: MemoryNeed) => void;
  /** Whatever a process said. */
  readonly onMessage?: (index: number, message: unknown) => void;
  /** Called when no process is left and none will be started. */
  readonly onExhausted: (exit: WorkerExit) => void;
  /** The program to start; the built command line by default. */
  readonly command?: readonly string[];
}

export interface WorkerExit {
  readonly index: number;
  readonly pid: number;
  /** "exit code 1", "killed by SIGKILL". */
  readonly reason: string;
  readonly logFile: string;
  /** Of this worker since it last finished a group. */
  readonly restarts: number;
  /** Undefined: it is not started again. */
  readonly restartInMs: number | undefined;
}

/** A crash at once would come again at once: each restart of a worker waits twice as long, up to a limit. */
const firstRestartDelayMs = 250;
const maxRestartDelayMs = 30_000;
/** Workers that were told that the run is over have this long to leave. */
const farewellMs = 5_000;
/** A killed process that hangs in a driver or a dead file system leaves when that lets it. */
const killedMs = 5_000;
/** Closes the gap between a process's start and its first line, where this release of Node can. */
const withoutDebugger = process.allowedNodeEnvironmentFlags.has("--disable-sigusr1")
  ? ["--disable-sigusr1"]
  : [];
const tailLines = 20;
/** The end of a log that is shown; a line of a stack trace is some 100 bytes. */
const tailBytes = 16 * 1024;

/** The message of a worker to its supervisor. */
export type WorkerMessage =
  | { readonly type: "metrics"; readonly address: string }
  | { readonly type: "memory"; readonly memory: MemoryNeed };

/** Starts worker processes on this machine, keeps their logs, and starts them again when they die. */
export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #children = new Map<
    number,
    { readonly child: ChildProcess; readonly ended: Promise<void> }
  >();
  readonly #restarts: number[];
  readonly #timers = new Set<NodeJS.Timeout>();
  #isStopping = false;
  #restartsAreOver = false;

  constructor(options: SupervisorOptions) {
    this.#options = options;
    this.#restarts = Array.from({ length: options.numWorkers }, () => 0);
  }

  start(): void {
    for (let index = 0; index < this.#options.numWorkers; index++) this.#spawn(index);
  }

  /** A worker process finished a group: what it failed at before is overcome, and its restarts count anew. */
  progressed(pid: number): void {
    for (const [index, { child }] of this.#children) {
      if (child.pid === pid) this.#restarts[index] = 0;
    }
  }

  /**
   * The run ends after its step: a worker that dies is not worth a start any more, the others take its
   * groups.
   */
  stopRestarting(): void {
    this.#restartsAreOver = true;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
  }

  /** Lets the workers leave by themselves; kills those that stay. Takes 10 s at most. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    for (const timer of this.#timers) clearTimeout(timer);
    const exits = [...this.#children.values()].map(({ ended }) => ended);
    // One that has not joined yet would look for a coordinator that is gone.
    for (const { child } of this.#children.values()) if (child.connected) child.disconnect();
    const kill = setTimeout(() => this.killAll(), farewellMs);
    let giveUp: NodeJS.Timeout | undefined;
    const tooLate = new Promise<void>((resolve) => {
      giveUp = setTimeout(resolve, farewellMs + killedMs);
    });
    await Promise.race([Promise.all(exits), tooLate]);
    clearTimeout(kill);
    clearTimeout(giveUp);
    // One that even SIGKILL does not end must not keep this process.
    for (const { child } of this.#children.values()) child.unref();
  }

  killAll(): void {
    this.#isStopping = true;
    for (const timer of this.#timers) clearTimeout(timer);
    for (const { child } of this.#children.values()) child.kill("SIGKILL");
  }

  #spawn(index: number): void {
    const { role = "worker", logDirectory } = this.#options;
    const logFile = join(logDirectory, `${role}-${index + 1}.log`);
    const log = this.#openLog(logFile);
    let child: ChildProcess;
    try {
      child = this.#startProcess(index, log ?? "ignore");
    } catch (error) {
      // Once all have been tried: the last that is left ends the run.
      setImmediate(() => {
        if (!this.#isStopping) this.#exited(index, 0, reasonOf(error), logFile);
      });
      return;
    } finally {
      if (log !== undefined) closeSync(log);
    }
    child.on("message", (message) => {
      this.#options.onMessage?.(index, message);
      const sent = message as WorkerMessage;
      if (sent.type === "metrics") this.#options.onMetrics?.(index, sent.address);
      if (sent.type === "memory") this.#options.onMemory?.(sent.memory);
    });
    let leave = (): void => {};
    const ended = new Promise<void>((resolve) => {
      leave = resolve;
    });
    let isOver = false;
    const startedAt = performance.now();
    const { steadyMs = Number.POSITIVE_INFINITY } = this.#options;
    const over = (reason: string, isDone = false): void => {
      if (isOver) return;
      isOver = true;
      if (performance.now() - startedAt >= steadyMs) this.#restarts[index] = 0;
      leave();
      this.#children.delete(index);
      // A worker that ends well was told that the run is over.
      if (!this.#isStopping && !isDone) this.#exited(index, child.pid ?? 0, reason, logFile);
    };
    this.#children.set(index, { child, ended });
    child.on("error", (error) => {
      // Of a process that runs it is a message or a signal that did not arrive.
      if (child.pid === undefined) over(reasonOf(error));
    });
    child.on("exit", (code, signal) =>
      over(signal === null ? `exit code ${code}` : `killed by ${signal}`, code === 0),
    );
  }

  /** @returns its descriptor; undefined where there is none, which is told */
  #openLog(logFile: string): number | undefined {
    let log: number | undefined;
    try {
      // Somebody may have removed it while the run goes on.
      mkdirSync(this.#options.logDirectory, { recursive: true });
      log = openSync(logFile, "a");
      writeSync(log, `--- started ${new Date().toISOString()}\n`);
    } catch (error) {
      this.#options.onLogFailure(logFile, error);
    }
    return log;
  }

  #startProcess(index: number, output: number | "ignore"): ChildProcess {
    const { workerArgs, environment, role = "worker" } = this.#options;
    const { ownArgs = () => ["--name", `worker-${index + 1}`] } = this.#options;
    const command = this.#options.command ?? [join(packageRoot, "bin", "lockstep")];
    return spawn(
      process.execPath,
      [...withoutDebugger, ...command, role, ...ownArgs(index), ...workerArgs],
      {
        // Ctrl-C goes to the terminal's process group: a worker must live on to finish the step. What is sent
        // to every process of a job it leaves to this one, whose id it knows.
        detached: true,
        env: {
          ...process.env,
          ...environment(index),
          LOCKSTEP_SUPERVISOR: String(process.pid),
        },
        stdio: ["ignore", output, output, "ipc"],
      },
    );
  }

  #exited(index: number, pid: number, reason: string, logFile: string): void {
    const restarts = this.#restarts[index] ?? 0;
    const willRestart = !this.#restartsAreOver && restarts < this.#options.maxRestarts;
    const restartInMs = willRestart
      ? Math.min(firstRestartDelayMs * 2 ** restarts, maxRestartDelayMs)
      : undefined;
    const exit: WorkerExit = { index, pid, reason, logFile, restarts, restartInMs };
    this.#options.onExit(exit);
    if (willRestart) {
      this.#restarts[index] = restarts + 1;
      const timer = setTimeout(() => {
        this.#timers.delete(timer);
        this.#spawn(index);
      }, restartInMs);
      this.#timers.add(timer);
    } else if (!this.#restartsAreOver && this.#children.size === 0 && this.#timers.size === 0) {
      this.#options.onExhausted(exit);
    }
  }
}

/** Why a process could not be started, for a person. */
const reasonOf = (error: unknown): string =>
  new LockstepError("E_PROCESS_START", {
    program: "a worker",
    problem: error instanceof Error ? error.message : String(error),
  }).message;

/** The last lines of a log. */
export async function logTail(file: string): Promise<string[]> {
  const handle = await open(file, "r");
  try {
    const { size } = await handle.stat();
    const length = Math.min(size, tailBytes);
    const { buffer, bytesRead } = await handle.read({
      buffer: Buffer.alloc(length),
      position: size - length,
    });
    return buffer.subarray(0, bytesRead).toString("utf8").trimEnd().split("\n").slice(-tailLines);
  } finally {
    await handle.close();
  }
}

/** Where the logs of a run are. */
export function logDirectoryOf(outputDir: string): string {
  return join(outputDir, "logs");
}
