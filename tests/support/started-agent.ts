import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { packageRoot } from "#lib/core/paths";
import { signalAll } from "./processes.js";

export interface StartedAgent {
  readonly child: ChildProcess;
  /** What it has printed so far, in pieces. */
  readonly said: string[];
}

/** Agents of a queue that a test starts in a directory. */
export class TestAgents {
  readonly #running = new Set<ChildProcess>();

  /** `lockstep agent ARGS`, with a cache of the directory. */
  start(
    directory: string,
    args: readonly string[],
    environment: Readonly<Record<string, string>> = {},
  ): StartedAgent {
    const child = spawn(process.execPath, [join(packageRoot, "bin/lockstep"), "agent", ...args], {
      cwd: directory,
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, LOCKSTEP_CACHE: join(directory, "cache"), ...environment },
    });
    this.#running.add(child);
    child.once("exit", () => this.#running.delete(child));
    const said: string[] = [];
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (chunk: Buffer) => said.push(chunk.toString()));
    }
    return { child, said };
  }

  /** Those that are stopped, too. */
  killAll(): void {
    for (const child of this.#running) {
      signalAll(child.pid ?? 0, "SIGCONT");
      child.kill("SIGKILL");
    }
  }
}
