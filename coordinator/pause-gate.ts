import type { RunPhases } from "./run-phases.js";

/** Holds a run between two steps, for as long as somebody wants it. Outlives coordinators of one process. */
export class PauseGate {
  #isPaused = false;
  readonly #waiting = new Set<() => void>();
  #keep: (isPaused: boolean) => Promise<void> = async () => {};
  /** One word after the other is kept. */
  #last: Promise<unknown> = Promise.resolve();

  /** @param keep writes down what a coordinator that comes after this one's death is to know */
  keepWith(keep: (isPaused: boolean) => Promise<void>): void {
    this.#keep = keep;
  }

  /** The run is paused as it begins. */
  begin(): void {
    this.#isPaused = true;
  }

  /** @returns false where that was asked for already. @throws where it cannot be kept; it is paused all the same */
  async pause(): Promise<boolean> {
    return this.#afterLast(async () => {
      if (this.#isPaused) return false;
      this.#isPaused = true;
      await this.#keep(true);
      return true;
    });
  }

  /** @returns false where the run is not paused. @throws where that cannot be kept: it stays paused */
  async resume(): Promise<boolean> {
    return this.#afterLast(async () => {
      if (!this.#isPaused) return false;
      await this.#keep(false);
      this.#isPaused = false;
      this.wake();
      return true;
    });
  }

  async #afterLast<T>(act: () => Promise<T>): Promise<T> {
    const done = this.#last.then(act);
    this.#last = done.catch(() => {});
    return done;
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
