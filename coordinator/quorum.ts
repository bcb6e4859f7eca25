import type { RunPhases } from "./run-phases.js";

/** Whether as many workers are here as `min_workers` asks for. */
export class Quorum {
  readonly #minWorkers: number;
  readonly #phases: RunPhases;
  readonly #waiting = new Set<() => void>();
  #numWorkers = 0;

  constructor(minWorkers: number, phases: RunPhases) {
    this.#minWorkers = minWorkers;
    this.#phases = phases;
  }

  /** To be called when workers came or went. */
  membersChanged(numWorkers: number): void {
    this.#numWorkers = numWorkers;
    if (this.#isThere) this.#end();
    this.#phases.membersChanged(numWorkers);
  }

  /** Settles once enough are here, which is told where it takes a while; or when it is given up. */
  async reached(): Promise<void> {
    if (this.#isThere) return;
    this.#phases.await(this.#minWorkers, this.#numWorkers);
    await new Promise<void>((resolve) => this.#waiting.add(resolve));
  }

  /** Nothing new begins: whoever is here finishes what is to be finished. */
  giveUp(): void {
    this.#end();
  }

  get #isThere(): boolean {
    // A run without any worker says so itself.
    return this.#minWorkers <= 1 || this.#numWorkers >= this.#minWorkers;
  }

  #end(): void {
    if (this.#waiting.size === 0) return;
    this.#phases.await(1, this.#numWorkers);
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }
}
