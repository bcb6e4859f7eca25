/** After its last sign of life nobody waits longer for a process to register. */
const strayLastsMs = 10_000;
/** Beyond these nobody is remembered; a run has no more members. */
const maxStrays = 4_096;

/**
 * Processes that live, know of the run, and are no members of it at the moment: they were told to ask again, or lost
 * their registration and are about to ask for another. A run that ends meanwhile tells them so.
 */
export class Strays {
  readonly #now: () => number;
  readonly #lastMs = new Map<string, number>();

  /** @param now milliseconds, monotonic */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** Those that may still come. */
  get size(): number {
    const since = this.#now() - strayLastsMs;
    for (const [incarnation, lastMs] of this.#lastMs) {
      if (lastMs < since) this.#lastMs.delete(incarnation);
    }
    return this.#lastMs.size;
  }

  /** It showed that it lives, and will register. */
  noted(incarnation: string): void {
    if (!this.#lastMs.has(incarnation) && this.size >= maxStrays) return;
    this.#lastMs.set(incarnation, this.#now());
  }

  /** It is a member, or knows that it will not be one. */
  settled(incarnation: string): void {
    this.#lastMs.delete(incarnation);
  }

  /** @param incarnations what those of a process that has ended begin with */
  ended(incarnations: string): void {
    for (const incarnation of this.#lastMs.keys()) {
      if (incarnation.startsWith(incarnations)) this.#lastMs.delete(incarnation);
    }
  }
}
