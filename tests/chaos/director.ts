import { createServer, type Server, type Socket } from "node:net";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import type { Fault, Moment, Phase } from "./schedule.js";

/** A process of the run, as the director knows it. */
export interface Actor {
  readonly role: "coordinator" | "worker" | "reducer";
  readonly pid: number;
}

/** A fault that has a moment: those of messages and members begin otherwise. */
export type TimedFault = Extract<Fault, { readonly when: Moment }>;

/**
 * Holds the processes of a run at the points of their loops, counts how often some was there, and lets faults
 * happen at their moments before it lets go.
 */
export class Director {
  readonly #server: Server;
  readonly #pending: Set<TimedFault>;
  readonly #happen: (fault: TimedFault, at: Actor | undefined) => Promise<void>;
  readonly #counts = new Map<Phase, number>();
  readonly #paceMs: () => number;
  readonly #sockets = new Map<number, Socket>();
  readonly #timers: NodeJS.Timeout[] = [];
  #numBytes = 0;

  /**
   * @param happen carries a fault out; `at` is the process whose phase its moment is
   * @param paceMs what each group takes longer than it takes
   */
  constructor(
    faults: readonly TimedFault[],
    happen: (fault: TimedFault, at: Actor | undefined) => Promise<void>,
    paceMs: () => number,
  ) {
    this.#paceMs = paceMs;
    this.#pending = new Set(faults);
    this.#happen = happen;
    this.#server = createServer((socket) => this.#listenTo(socket));
  }

  /** @param path of a socket that the processes connect to */
  async open(path: string): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(path, resolve);
    });
  }

  /** Bytes went through a proxy. */
  bytesPassed(numBytes: number): void {
    this.#numBytes += numBytes;
    void this.#begin(({ when }) => when.at === "bytes" && when.afterBytes <= this.#numBytes);
  }

  /** The first step is made: from here milliseconds count. */
  firstStep(): void {
    for (const fault of this.#pending) {
      const { when } = fault;
      if (when.at !== "ms") continue;
      const timer = setTimeout(() => void this.#begin((each) => each === fault), when.afterMs);
      this.#timers.push(timer);
    }
  }

  /** Moves the wall clock of a process. */
  moveClock(pid: number, byMs: number): void {
    this.#sockets.get(pid)?.write(`${JSON.stringify({ clockMs: byMs })}\n`);
  }

  /** From now on nothing happens and nobody is held. */
  close(): void {
    this.#pending.clear();
    for (const timer of this.#timers) clearTimeout(timer);
    this.#server.close();
    for (const socket of this.#sockets.values()) socket.destroy();
  }

  #listenTo(socket: Socket): void {
    let actor: Actor | undefined;
    socket.on("error", () => {});
    socket.once("close", () => {
      if (actor !== undefined && this.#sockets.get(actor.pid) === socket) {
        this.#sockets.delete(actor.pid);
      }
    });
    const lines = createInterface({ input: socket });
    // It passes the socket's errors on.
    lines.on("error", () => {});
    lines.on("line", (line) => {
      const fact = JSON.parse(line) as Actor | { readonly id: number; readonly phase: Phase };
      if ("role" in fact) {
        actor = fact;
        this.#sockets.set(fact.pid, socket);
        return;
      }
      void this.#reached(fact.phase, actor).then(() => {
        if (!socket.destroyed) socket.write(`${JSON.stringify({ go: fact.id })}\n`);
      });
    });
  }

  async #reached(phase: Phase, actor: Actor | undefined): Promise<void> {
    const count = (this.#counts.get(phase) ?? 0) + 1;
    this.#counts.set(phase, count);
    if (phase === "leased" && this.#paceMs() > 0) await delay(this.#paceMs());
    await this.#begin(
      ({ when }) => when.at === "phase" && when.phase === phase && when.nth <= count,
      actor,
    );
  }

  #begin(isDue: (fault: TimedFault) => boolean, at?: Actor): Promise<unknown> {
    const due = [...this.#pending].filter(isDue);
    for (const fault of due) this.#pending.delete(fault);
    return Promise.all(due.map((fault) => this.#happen(fault, at)));
  }
}
