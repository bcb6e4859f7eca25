import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import type { ResolvedConfig } from "#lib/config/index";
import { LockstepError } from "#lib/core/errors/index";
import { packageRoot } from "#lib/core/paths";
import { startLocalWorkers } from "./local-cluster.js";
import type { OwnWorkers } from "./own-processes.js";
import { supervisedHere } from "./own-workers.js";
import { type StartReducers, startReducers } from "./reducers.js";
import { coordinatorOf, type FromCoordinator, type ToCoordinator } from "./supervised-processes.js";

/** Coordinators that died in a row, without a group that was finished in between. */
const maxRestarts = 5;
const firstDelayMs = 250;

interface RunEnd {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/**
 * Runs `lockstep train` as processes: a coordinator, its workers and its reducers. This one only starts them, and a
 * coordinator that was killed again: workers and reducers live on, so the run goes on where it was.
 */
export class RunSupervisor {
  readonly #config: ResolvedConfig;
  readonly #command: readonly string[];
  readonly #note: (text: string) => void;
  #child: ChildProcess | undefined;
  #reducers: ReturnType<StartReducers> | undefined;
  #workers: Promise<OwnWorkers> | undefined;
  /** That no worker is left, for each coordinator that asks for them. */
  #exhausted: Extract<ToCoordinator, { readonly type: "exhausted" }> | undefined;
  #isStopping = false;
  /** Whether the coordinator has said a word. */
  #isListening = false;
  /** For when it has. */
  readonly #pending: NodeJS.Signals[] = [];
  /** What ends the run while no coordinator is there. */
  #failure: LockstepError | undefined;
  #restarts = 0;
  #ports: { control?: number; http?: number } = {};
  #endWait: () => void = () => {};

  /**
   * @param command of `lockstep train`, its name included
   * @param note a line for a person, while no coordinator is there to tell it
   */
  constructor(config: ResolvedConfig, command: readonly string[], note: (text: string) => void) {
    this.#config = config;
    this.#command = command;
    this.#note = note;
  }

  /** @returns how the last coordinator ended. @throws E_COORDINATOR_DIED, E_WORKERS_EXHAUSTED */
  async run(): Promise<RunEnd> {
    try {
      for (;;) {
        const end = await this.#live();
        if (this.#failure !== undefined) throw this.#failure;
        if (end.signal === null || this.#isStopping) return end;
        if (this.#restarts >= maxRestarts) {
          throw new LockstepError("E_COORDINATOR_DIED", {
            ...{ restarts: this.#restarts, reason: `killed by ${end.signal}` },
            directory: this.#config.output_dir,
          });
        }
        const delayMs = firstDelayMs * 2 ** this.#restarts;
        this.#restarts += 1;
        this.#note(
          `the coordinator ended (killed by ${end.signal}); it is started again in ${delayMs / 1000} s, and goes on where the run is`,
        );
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, delayMs);
          this.#endWait = () => {
            clearTimeout(timer);
            resolve();
          };
        });
        if (this.#failure !== undefined) throw this.#failure;
        if (this.#isStopping) return end;
      }
    } finally {
      await this.#close();
    }
  }

  /** Passes a signal on to the coordinator, which does what it asks for. @param ends whether it asks for the end */
  signal(signal: NodeJS.Signals, ends: boolean): void {
    if (ends) this.#isStopping = true;
    // One that has not said a word does not listen yet: what is no stop would end it.
    if (this.#child !== undefined && !ends && !this.#isListening) this.#pending.push(signal);
    else if (this.#child !== undefined) this.#child.kill(signal);
    else if (ends) this.#endWait();
  }

  async #live(): Promise<RunEnd> {
    const child = spawn(
      process.execPath,
      [...process.execArgv, join(packageRoot, "bin", "lockstep"), ...this.#command],
      {
        // Ctrl-C goes to the terminal's process group: this process passes it on, once.
        detached: true,
        env: {
          ...process.env,
          ...coordinatorOf(process.pid, this.#ports),
          ...supervisedHere,
        },
        stdio: ["inherit", "inherit", "inherit", "ipc"],
      },
    );
    this.#child = child;
    this.#isListening = false;
    child.on("message", (message) => {
      this.#isListening = true;
      for (const signal of this.#pending.splice(0)) child.kill(signal);
      void this.#answer(child, message as FromCoordinator);
    });
    return new Promise((resolve, reject) => {
      child.on("error", (error) => {
        if (child.pid === undefined) reject(error);
      });
      child.on("close", (code, signal) => {
        this.#child = undefined;
        resolve({ code, signal });
      });
    });
  }

  async #answer(child: ChildProcess, message: FromCoordinator): Promise<void> {
    switch (message.type) {
      case "startReducers": {
        this.#reducers ??= startReducers(this.#config, { note: (text) => this.#tell(text) });
        const answer = await this.#reducers.then(
          ({ addresses }): ToCoordinator => ({ type: "reducers", addresses }),
          failed("reducersFailed"),
        );
        this.#send(answer, child);
        break;
      }
      case "startWorkers": {
        const { controlAddress } = message;
        this.#workers ??= startLocalWorkers(this.#config, {
          controlAddress,
          note: (text) => this.#tell(text),
          prepared: () => undefined,
          onExit: (exit) => this.#send({ type: "workerExit", exit }),
          onExhausted: (error) => {
            this.#exhausted = { type: "exhausted", details: error.details };
            if (this.#send(this.#exhausted)) return;
            // Nobody is there to end the run, and another coordinator would wait for workers for ever.
            this.#failure = error;
            this.#endWait();
          },
        });
        const answer = await this.#workers.then(
          (): ToCoordinator => ({ type: "workers" }),
          failed("workersFailed"),
        );
        this.#send(answer, child);
        // One that was just starting has not heard of it, and the one before may have died with it.
        if (this.#exhausted !== undefined) this.#send(this.#exhausted, child);
        break;
      }
      case "ports":
        this.#ports = { ...this.#ports, ...message.ports };
        break;
      case "progressed":
        this.#restarts = 0;
        (await this.#workers)?.progressed(message.pid);
        break;
      case "stopRestarting":
        (await this.#workers)?.stopRestarting();
        break;
      case "stop":
        await this.#close();
        this.#send({ type: "stopped" }, child);
        break;
    }
  }

  /** @returns whether somebody was there */
  #send(message: ToCoordinator, child = this.#child): boolean {
    if (child?.connected !== true) return false;
    // One that dies meanwhile is started again.
    child.send(message, () => {});
    return true;
  }

  #tell(text: string): void {
    if (!this.#send({ type: "note", text })) this.#note(text);
  }

  async #close(): Promise<void> {
    const [workers, reducers] = await Promise.all([
      this.#workers?.catch(() => undefined),
      this.#reducers?.catch(() => undefined),
    ]);
    await Promise.all([workers?.stop(), reducers?.stop()]);
  }
}

const failed =
  (type: "reducersFailed" | "workersFailed") =>
  (error: unknown): ToCoordinator => ({
    type,
    message: error instanceof Error ? error.message : String(error),
  });
