import { hostPort } from "#lib/core/address";
import { errorCodeOf } from "./account.js";
import type { Exit, Program } from "./program.js";
import type { Schedule } from "./schedule.js";

const firstPort = 7_300;

interface Hooks {
  readonly start: (args: readonly string[], name: string) => Program;
  readonly onBadEnd: (problem: string) => void;
}

/** The reducer processes of a run, each at its address for as long as the run goes on: one that ends is started again. */
export class Reducers {
  readonly addresses: readonly string[];
  /** Keys of the run's configuration. */
  readonly settings: Readonly<Record<string, unknown>>;
  readonly #hooks: Hooks;
  readonly #programs: Program[] = [];
  readonly #killed = new Set<number>();
  #isOver = false;

  private constructor(
    { numShards, numReplicas }: Required<Pick<Schedule, "numShards" | "numReplicas">>,
    host: string,
    hooks: Hooks,
  ) {
    this.#hooks = hooks;
    this.addresses = Array.from({ length: numShards * numReplicas }, (_, index) =>
      hostPort(host, firstPort + index),
    );
    this.settings = {
      ...{ reducers: this.addresses, reducer_replicas: numReplicas },
      ...{ reducer_compare_steps: 1, reducer_timeout_ms: 20_000 },
    };
  }

  /** @returns undefined where the coordinator's own threads keep the shards. @param host where they listen */
  static of(
    { numShards, numReplicas }: Schedule,
    host: string,
    hooks: Hooks,
  ): Reducers | undefined {
    return numReplicas && new Reducers({ numShards, numReplicas }, host, hooks);
  }

  startAll(): void {
    for (const index of this.addresses.keys()) this.#run(index);
  }

  /** Kills one, by its number or the id of its process. */
  kill(who: number, pid = this.#programs[who % this.addresses.length]?.pid): void {
    if (pid === undefined) return;
    this.#killed.add(pid);
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // It has ended.
    }
  }

  /** The run is over: those that were not told so are ended. */
  async stop(): Promise<void> {
    this.#isOver = true;
    for (const program of this.#programs) if (!program.isOver()) this.kill(0, program.pid);
    await Promise.all(this.#programs.map(({ exited }) => exited));
  }

  #run(index: number): void {
    const args = ["reducer", "--listen", this.addresses[index] ?? "", "--metrics-port", "null"];
    const program = this.#hooks.start(args, `reducer-${index}`);
    this.#programs[index] = program;
    void program.exited.then((exit) => this.#ended(index, program.pid, exit));
  }

  #ended(index: number, pid: number, exit: Exit): void {
    if (this.#isOver) return;
    const isKnown = this.#killed.has(pid) || exit.code === 0 || errorCodeOf(exit) !== undefined;
    if (!isKnown) {
      const how = `reducer-${index} ended with ${exit.code ?? exit.signal}`;
      this.#hooks.onBadEnd(`${how}: ${exit.stderr.trim().slice(-2_000)}`);
    }
    // One that was told that the run is over has nothing left to do.
    if (exit.code !== 0) this.#run(index);
  }
}
