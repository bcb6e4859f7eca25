/** Between two looks at the time, where nobody else asks for it. */
const lookEveryMs = 100;
/** Of the time since the last look what counts: where it was longer, this process, or this thread, did not run. */
const maxCountedMs = 2 * lookEveryMs;

/**
 * Milliseconds that this process was awake. Whoever is silent is measured by it: a process that was stopped, or whose
 * machine was, could hear nobody meanwhile, and its timers come before what others sent it. Its own promises to others,
 * who go by their own clocks, are none of its business.
 */
export class AwakeClock {
  readonly #clock: () => number;
  #lookedAtMs: number;
  #awakeMs = 0;

  /** @param clock milliseconds, monotonic; it goes on while the process is stopped */
  constructor(clock: () => number) {
    this.#clock = clock;
    this.#lookedAtMs = clock();
  }

  /** To be called more often than every `maxCountedMs`: what is beyond does not count. */
  now(): number {
    const nowMs = this.#clock();
    this.#awakeMs += Math.min(nowMs - this.#lookedAtMs, maxCountedMs);
    this.#lookedAtMs = nowMs;
    return this.#awakeMs;
  }
}

let ofThisThread: AwakeClock | undefined;

/** The clock of this thread, which begins when it is first asked. */
export function awakeMs(): number {
  if (ofThisThread === undefined) {
    const clock = new AwakeClock(() => performance.now());
    setInterval(() => clock.now(), lookEveryMs).unref();
    ofThisThread = clock;
  }
  return ofThisThread.now();
}
