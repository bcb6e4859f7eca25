/** How long a worker that is asked to leave may take, and what is given up when that is too short. */
export class Drain {
  /** Aborted when what is in work is given back. */
  readonly givenBack: AbortSignal;
  readonly #end = new AbortController();
  readonly #graceMs: number | undefined;
  readonly #onGivenBack: (reason: string) => void;
  /** Milliseconds that the group in work still takes; undefined: unknown, or there is none. */
  #remainingMs: () => number | undefined = () => undefined;
  #deadlineMs: number | undefined;

  /** @param graceMs undefined: as long as it takes */
  constructor(
    drain: AbortSignal | undefined,
    graceMs: number | undefined,
    onGivenBack: (reason: string) => void,
  ) {
    this.givenBack = this.#end.signal;
    this.#graceMs = graceMs;
    this.#onGivenBack = onGivenBack;
    if (drain?.aborted === true) this.#begin();
    drain?.addEventListener("abort", () => this.#begin(), { once: true });
  }

  /** @param remainingMs what a group that is begun now still takes, asked for at any time */
  works(remainingMs: () => number | undefined): void {
    this.#remainingMs = remainingMs;
    // One that came with the answer to a call that was under way.
    if (this.#deadlineMs !== undefined) this.#look();
  }

  /** Nothing is in work any more. */
  rests(): void {
    this.#remainingMs = () => undefined;
  }

  #begin(): void {
    if (this.#graceMs === undefined) return;
    this.#deadlineMs = performance.now() + this.#graceMs;
    const giveUp = setTimeout(
      () => this.#giveBack(`it is not done within ${(this.#graceMs ?? 0) / 1000} s`),
      this.#graceMs,
    );
    // A worker that has left is not kept.
    giveUp.unref();
    this.#look();
  }

  #look(): void {
    const remainingMs = this.#remainingMs();
    const leftMs = (this.#deadlineMs ?? Number.POSITIVE_INFINITY) - performance.now();
    if (remainingMs === undefined || remainingMs <= leftMs) return;
    this.#giveBack(
      `it takes ${Math.ceil(remainingMs / 1000)} s more, and ${Math.max(0, Math.round(leftMs / 1000))} s are left`,
    );
  }

  #giveBack(reason: string): void {
    if (this.givenBack.aborted) return;
    this.#onGivenBack(reason);
    this.#end.abort();
  }
}
