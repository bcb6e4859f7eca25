import type { RunPhases } from "./run-phases.js";

/** Holds a run between two steps, for as long as somebody wants it. Outlives coordinators of one process. */
export class PauseGate {
  #isPaused = false;
  readonly #waiting = new Set<() => void>();

  /** @returns false where that was asked for already */
  pause(): boolean {
    const isNew = !this.#isPaused;
    this.#isPaused = true;
    return isNew;
  }

  /** @returns false where the run is not paused */
  resume(): boolean {
    const isNew = this.#isPaused;
    this.#isPaused = false;
    this.wake();
    return isNew;
  }

  /** Lets whoever waits look again. */
  wake(): void {
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }

  /**
   * Settles once the run may go on.
   *
   * @param work what is done meanwhile, until the promise settles; throws where the run ends before
   */
  async passed(phases: RunPhases, work: (changed: Promise<void>) => Promise<void>): Promise<void> {
    if (!this.#isPaused) return;
    phases.begin("paused", "until somebody tells it to resume");
    while (this.#isPaused) {
      await work(new Promise<void>((resolve) => this.#waiting.add(resolve)));
    }
    phases.begin("training");
  }
}
