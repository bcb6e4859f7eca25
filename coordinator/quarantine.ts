/** Failures without a result in between after which a worker is kept out for a while. */
const maxFailures = 5;
const firstPauseMs = 30_000;
const maxPauseMs = 30 * 60_000;

interface Conduct {
  numFailures: number;
  /** How often it was kept out without a result since. */
  numPauses: number;
  outUntilMs: number;
  /** For good, in this life of the coordinator. */
  banReason: string | undefined;
}

/**
 * Who is kept out, by the incarnation of its process: for good who computed other bits than the rest or
 * counted other rows, for a time that doubles who fails again and again. A result makes its failures forgotten.
 */
export class Quarantine {
  readonly #now: () => number;
  readonly #conduct = new Map<string, Conduct>();
  /** Kept out since anybody brought a result. */
  #outSinceProgress = new Set<string>();

  /** @param now milliseconds, monotonic */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** Workers that were kept out since anybody brought a result. */
  get numOutSinceProgress(): number {
    return this.#outSinceProgress.size;
  }

  /** @returns why it may not take part, or after how long it may; undefined where it may */
  verdictOf(
    incarnation: string,
  ): { readonly banReason: string } | { readonly waitMs: number } | undefined {
    const conduct = this.#conduct.get(incarnation);
    if (conduct?.banReason !== undefined) return { banReason: conduct.banReason };
    const waitMs = Math.ceil((conduct?.outUntilMs ?? 0) - this.#now());
    return waitMs > 0 ? { waitMs } : undefined;
  }

  ban(incarnation: string, reason: string): void {
    this.#of(incarnation).banReason = reason;
    this.#outSinceProgress.add(incarnation);
  }

  /** @returns how long it is kept out from now on, milliseconds; 0 where it is not */
  failed(incarnation: string): number {
    const conduct = this.#of(incarnation);
    conduct.numFailures += 1;
    if (conduct.numFailures < maxFailures) return 0;
    const pauseMs = Math.min(firstPauseMs * 2 ** conduct.numPauses, maxPauseMs);
    conduct.numFailures = 0;
    conduct.numPauses += 1;
    conduct.outUntilMs = this.#now() + pauseMs;
    this.#outSinceProgress.add(incarnation);
    return pauseMs;
  }

  /** Failures without a result in between. */
  failuresOf(incarnation: string): number {
    return this.#conduct.get(incarnation)?.numFailures ?? 0;
  }

  /** A worker brought a result that counts. */
  succeeded(incarnation: string): void {
    this.#outSinceProgress = new Set();
    const conduct = this.#conduct.get(incarnation);
    if (conduct !== undefined && conduct.banReason === undefined) this.#conduct.delete(incarnation);
  }

  #of(incarnation: string): Conduct {
    let conduct = this.#conduct.get(incarnation);
    if (conduct === undefined) {
      conduct = { numFailures: 0, numPauses: 0, outUntilMs: 0, banReason: undefined };
      this.#conduct.set(incarnation, conduct);
    }
    return conduct;
  }
}
