import type { Lease, LeaseTable } from "./leases.js";
import type { Paces } from "./paces.js";

/** What is decided upon: a work's items, and who may do them. */
export interface AllottedWork {
  readonly leases: LeaseTable;
  /** Works of one kind have items that take about as long. */
  readonly kind: string;
  mayTake?(item: number, workerId: string): boolean;
}

/** What computing an item again must gain, of what it costs. */
const worthwhileGain = 0.25;

/**
 * Who computes which item, so that a slow worker keeps nobody waiting. Items that wait go to whoever asks, in order,
 * but not to a worker that would still be at one when the others have done all that wait. When none waits, a worker
 * that asks computes one again that another is at, where it will be done clearly sooner: the first result counts, and
 * the bits are the same. Where they need not be, nothing is computed again: two results that differ are a matter for a
 * third worker, and whoever is outvoted is kept out.
 */
export class Allotment {
  readonly #paces: Paces;
  readonly #now: () => number;
  readonly #haveSameBits: boolean;

  /** @param haveSameBits whether all workers compute the same bits */
  constructor(paces: Paces, now: () => number, haveSameBits: boolean) {
    this.#paces = paces;
    this.#now = now;
    this.#haveSameBits = haveSameBits;
  }

  /** @param idle others that wait for work */
  lease(work: AllottedWork, workerId: string, idle: readonly string[]): Lease | undefined {
    const { leases } = work;
    const mayTake = (item: number): boolean => work.mayTake?.(item, workerId) !== false;
    const item = leases.nextPending(mayTake);
    if (item === undefined) {
      return this.#haveSameBits ? this.#backup(work, workerId, mayTake) : undefined;
    }
    const others = [...new Set([...idle, ...leases.active().map((lease) => lease.workerId)])];
    const able = others.filter(
      (other) => other !== workerId && work.mayTake?.(item, other) !== false,
    );
    return this.#isLeftTo(able, work, workerId) ? undefined : leases.take(workerId, mayTake);
  }

  /** Whether others will have done all that waits before this worker had done one item. */
  #isLeftTo(others: readonly string[], { leases, kind }: AllottedWork, workerId: string): boolean {
    const ownMs = this.#paces.of(workerId, kind);
    if (ownMs === undefined) return false;
    const now = this.#now();
    const ownEnd = now + ownMs;
    const active = leases.active();
    let numDone = 0;
    for (const other of others) {
      const paceMs = this.#paces.of(other, kind);
      if (paceMs === undefined) continue;
      const ends = active
        .filter((lease) => lease.workerId === other && !lease.isReported)
        .map((lease) => this.#paces.expectedEnd(lease, kind));
      const freeAt = Math.max(now, ...ends);
      // What ends with this worker's item is no gain.
      const periods = Math.ceil((ownEnd - freeAt) / paceMs) - 1;
      numDone += Math.max(0, periods);
    }
    return numDone >= leases.numPending;
  }

  /** A second lease of the item that will be late longest. */
  #backup(
    { leases, kind }: AllottedWork,
    workerId: string,
    mayTake: (item: number) => boolean,
  ): Lease | undefined {
    const ownMs = this.#paces.of(workerId, kind);
    if (ownMs === undefined) return undefined;
    const least = this.#now() + ownMs * (1 + worthwhileGain);
    const late = leases
      .active()
      .filter(
        ({ item, isReported }) => !isReported && leases.numActive(item) === 1 && mayTake(item),
      )
      .map((lease) => ({ lease, end: this.#paces.expectedEnd(lease, kind) }))
      .filter(({ end }) => end > least)
      .sort((one, other) => other.end - one.end)[0];
    return late && leases.takeAgain(workerId, late.lease.item);
  }
}
