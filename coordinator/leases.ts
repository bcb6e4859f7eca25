import { randomInt } from "node:crypto";

/**
 * Where a coordinator begins to number its leases. Not at 1: a worker that outlived the coordinator before
 * may still report a lease of that one's, which must not be anybody's here.
 */
export const firstLeaseId = (): number => randomInt(1, 2 ** 31);

/** One promise of a worker to do one item. */
export interface Lease {
  readonly id: number;
  readonly item: number;
  readonly workerId: string;
  /** 1 for the first lease of an item. */
  readonly attempt: number;
  readonly grantedMs: number;
  readonly deadlineMs: number;
  /** The worker said what it computed; the bytes may be on their way. */
  readonly isReported: boolean;
  /** Another worker is at the item too, and slow. */
  readonly isBackup?: true;
}

interface LeaseTableOptions {
  readonly numItems: number;
  /** After this long the item is offered to others too. */
  readonly leaseTimeoutMs: number;
  /** Milliseconds, monotonic. */
  readonly now: () => number;
  /** Lease ids are unique in a job, not only in a table. */
  readonly nextLeaseId: () => number;
}

/**
 * Who does which of a fixed number of items: the gradient groups of a step, or evaluation batches.
 * An item may have several leases: after a timeout, where several results are wanted, or where its worker is slow
 * (`allotment.ts`). Workers that are slow get fewer items because they ask less often.
 */
export class LeaseTable {
  readonly #options: LeaseTableOptions;
  /** Results that an item waits for; 0: it is done. */
  readonly #wanted: number[];
  readonly #attempts: number[];
  /** Those whose result still counts. */
  readonly #leases = new Map<number, Lease>();
  /** Of these, those whose item waits for them. */
  readonly #active = new Map<number, Lease>();

  constructor(options: LeaseTableOptions) {
    this.#options = options;
    this.#wanted = Array.from({ length: options.numItems }, () => 1);
    this.#attempts = Array.from({ length: options.numItems }, () => 0);
  }

  get allDone(): boolean {
    return this.#wanted.every((count) => count === 0);
  }

  /** Items that the next who asks may get. */
  get numPending(): number {
    return this.#wanted.filter((_, item) => this.#isPending(item)).length;
  }

  /**
   * The lowest item that waits for a worker, or undefined where there is none.
   * @param mayTake whether this worker may do an item
   */
  nextPending(mayTake: (item: number) => boolean = () => true): number | undefined {
    const item = this.#wanted.findIndex((_, index) => this.#isPending(index) && mayTake(index));
    return item < 0 ? undefined : item;
  }

  /** A lease of that item. */
  take(workerId: string, mayTake?: (item: number) => boolean): Lease | undefined {
    const item = this.nextPending(mayTake);
    return item === undefined ? undefined : this.#grant(workerId, item);
  }

  /** One more lease of an item that another worker is at. */
  takeAgain(workerId: string, item: number): Lease {
    return this.#grant(workerId, item, { isBackup: true });
  }

  #grant(workerId: string, item: number, isBackup: { readonly isBackup?: true } = {}): Lease {
    const attempt = (this.#attempts[item] ?? 0) + 1;
    const grantedMs = this.#options.now();
    const lease: Lease = {
      id: this.#options.nextLeaseId(),
      item,
      workerId,
      attempt,
      grantedMs,
      deadlineMs: grantedMs + this.#options.leaseTimeoutMs,
      isReported: false,
      ...isBackup,
    };
    this.#attempts[item] = attempt;
    this.#leases.set(lease.id, lease);
    this.#active.set(lease.id, lease);
    return lease;
  }

  /** The lease, where its result still counts. */
  find(leaseId: number): Lease | undefined {
    return this.#leases.get(leaseId);
  }

  isDone(item: number): boolean {
    return this.#wanted[item] === 0;
  }

  /** Whether a worker has an item in work, overdue or not. */
  holds(workerId: string, item: number): boolean {
    return [...this.#leases.values()].some(
      (lease) => lease.workerId === workerId && lease.item === item,
    );
  }

  /** Leases that items wait for. */
  active(): readonly Lease[] {
    return [...this.#active.values()];
  }

  /** Leases that an item waits for. */
  numActive(item: number): number {
    return [...this.#active.values()].filter((lease) => lease.item === item).length;
  }

  /** Sets how many results an item waits for, beside those that are finished. */
  want(item: number, numResults: number): void {
    this.#wanted[item] = numResults;
    if (numResults > 0) return;
    for (const lease of [...this.#active.values()]) {
      if (lease.item === item) this.#active.delete(lease.id);
    }
  }

  /** A lease has brought all that it promised. */
  finish(leaseId: number): void {
    this.#active.delete(leaseId);
    this.#leases.delete(leaseId);
  }

  /** A worker said what it computed: the bytes must come within a time, and before its deadline. */
  reported(leaseId: number, withinMs: number): void {
    const lease = this.#leases.get(leaseId);
    if (lease === undefined || lease.isReported) return;
    const deadlineMs = Math.min(lease.deadlineMs, this.#options.now() + withinMs);
    const reported = { ...lease, deadlineMs, isReported: true };
    this.#leases.set(leaseId, reported);
    if (this.#active.has(leaseId)) this.#active.set(leaseId, reported);
  }

  /**
   * Takes back what a worker had promised, or all but some of it: its results do not count any more.
   * @param which only what it has not reported, or all
   * @returns the leases that were taken back
   */
  releaseWorker(
    workerId: string,
    except: readonly number[] = [],
    which: "all" | "unreported" = "all",
  ): readonly Lease[] {
    return this.#release(
      [...this.#leases.values()].filter(
        (lease) =>
          lease.workerId === workerId &&
          !except.includes(lease.id) &&
          !(which === "unreported" && lease.isReported),
      ),
    );
  }

  releaseLease(leaseId: number): readonly Lease[] {
    const lease = this.#leases.get(leaseId);
    return lease === undefined ? [] : this.#release([lease]);
  }

  /**
   * Offers overdue items to others. A result of theirs that comes all the same counts, but not bytes that were to
   * follow a report.
   * @returns their leases
   */
  expire(): readonly Lease[] {
    const now = this.#options.now();
    const overdue = [...this.#active.values()].filter((lease) => lease.deadlineMs <= now);
    for (const { id, isReported } of overdue) {
      this.#active.delete(id);
      if (isReported) this.#leases.delete(id);
    }
    return overdue;
  }

  #isPending(item: number): boolean {
    return this.numActive(item) < (this.#wanted[item] ?? 0);
  }

  #release(leases: readonly Lease[]): readonly Lease[] {
    for (const { id } of leases) {
      this.#active.delete(id);
      this.#leases.delete(id);
    }
    return leases;
  }
}
