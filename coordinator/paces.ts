import type { Lease } from "./leases.js";

/** How fast a worker is beside the others. */
export interface PaceNews {
  readonly workerId: string;
  /** Seconds of a gradient group. */
  readonly groupSeconds: number;
  /** The same of the median worker. */
  readonly medianSeconds: number;
  /** It takes twice the time of the median worker or more. */
  readonly isSlow: boolean;
}

/** Of the mean, what the latest item counts: a worker that is slowed down shows within a few items. */
const latestShare = 0.5;
/** Times the median worker's seconds at which a worker is called slow, and at which it is not any more. */
const slowRatio = 2;
const recoveredRatio = 1.5;
/** What an item of a worker that has finished none is taken to last, as a multiple of how long it has been at it. */
const overdueFactor = 1.5;
/** An estimate that no item confirms gets smaller, so that one bad item keeps nobody idle. */
const forgottenFactor = 0.5;

/**
 * How long workers take for an item of each kind of work, from its lease to its report. An estimate is only ever used
 * to decide who computes what: it changes no bit.
 */
export class Paces {
  readonly #now: () => number;
  readonly #onNews: (news: PaceNews) => void;
  /** What workers are at, or were when it was taken from them. */
  readonly #begun = new Map<number, { readonly lease: Lease; readonly kind: string }>();
  /** By worker, then kind: milliseconds. */
  readonly #means = new Map<string, Map<string, number>>();
  readonly #slow = new Set<string>();

  /** @param now milliseconds, monotonic */
  constructor(now: () => number, onNews: (news: PaceNews) => void = () => {}) {
    this.#now = now;
    this.#onNews = onNews;
  }

  begun(lease: Lease, kind: string): void {
    this.#begun.set(lease.id, { lease, kind });
  }

  /** A worker is done with a lease, whether or not it still counted. */
  ended(leaseId: number): void {
    const { lease, kind } = this.#begun.get(leaseId) ?? {};
    if (lease === undefined || kind === undefined) return;
    this.#begun.delete(leaseId);
    const tookMs = this.#now() - lease.grantedMs;
    const means = this.#means.get(lease.workerId) ?? new Map<string, number>();
    const before = means.get(kind);
    const mean = before === undefined ? tookMs : before + latestShare * (tookMs - before);
    means.set(kind, mean);
    this.#means.set(lease.workerId, means);
    if (kind === "group") this.#compare(lease.workerId, mean);
  }

  /** A worker asks for other work, and is at nothing but these leases. */
  endedAllBut(workerId: string, held: readonly number[]): void {
    for (const [id, { lease }] of this.#begun) {
      if (lease.workerId === workerId && !held.includes(id)) this.ended(id);
    }
  }

  /** A worker is gone. */
  forget(workerId: string): void {
    for (const [id, { lease }] of this.#begun) {
      if (lease.workerId === workerId) this.#begun.delete(id);
    }
    this.#means.delete(workerId);
    this.#slow.delete(workerId);
  }

  /** A worker had nothing to do all through a work, because it takes so long. */
  doubt(workerId: string, kind: string): void {
    const means = this.#means.get(workerId);
    const mean = means?.get(kind);
    if (mean !== undefined) means?.set(kind, mean * forgottenFactor);
  }

  /** Milliseconds that a worker takes for an item; undefined: it has finished none. */
  of(workerId: string, kind: string): number | undefined {
    return this.#means.get(workerId)?.get(kind);
  }

  /** When a worker will have done what it is at, on the clock of `now`. */
  expectedEnd({ workerId, grantedMs }: Lease, kind: string): number {
    const passedMs = this.#now() - grantedMs;
    return grantedMs + Math.max(this.of(workerId, kind) ?? 0, passedMs * overdueFactor);
  }

  #compare(workerId: string, meanMs: number): void {
    const all = [...this.#means.values()]
      .flatMap((means) => means.get("group") ?? [])
      .sort((one, other) => one - other);
    // Of two workers the faster one.
    const medianMs = all[Math.ceil(all.length / 2) - 1];
    if (medianMs === undefined || all.length < 2) return;
    const isSlow = this.#slow.has(workerId);
    const ratio = meanMs / medianMs;
    if (isSlow ? ratio >= recoveredRatio : ratio < slowRatio) return;
    if (isSlow) this.#slow.delete(workerId);
    else this.#slow.add(workerId);
    const seconds = { groupSeconds: meanMs / 1000, medianSeconds: medianMs / 1000 };
    this.#onNews({ workerId, ...seconds, isSlow: !isSlow });
  }
}
