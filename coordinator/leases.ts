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

type ItemState = "pending" | "leased" | "done";

/**
 * Who does which of a fixed number of items: the gradient groups of a step, or evaluation batches.
 * An item may have several leases after a timeout; the first result wins, whoever it comes from.
 * Workers that are slow get fewer items because they ask less often.
 */
export class LeaseTable {
  readonly #options: LeaseTableOptions;
  readonly #states: ItemState[];
  readonly #attempts: number[];
  /** Every lease ever granted here, so that a late result is still known. */
  readonly #leases = new Map<number, Lease>();
  /** Leases whose item waits for them. */
  readonly #active = new Map<number, Lease>();
  #numDone = 0;

  constructor(options: LeaseTableOptions) {
    this.#options = options;
    this.#states = Array.from({ length: options.numItems }, () => "pending");
    this.#attempts = Array.from({ length: options.numItems }, () => 0);
  }

  get allDone(): boolean {
    return this.#numDone === this.#options.numItems;
  }

  get numPending(): number {
    return this.#states.filter((state) => state === "pending").length;
  }

  /** The lowest pending item, or undefined when all are leased or done. */
  take(workerId: string): Lease | undefined {
    const item = this.#states.indexOf("pending");
    if (item < 0) return undefined;
    const attempt = (this.#attempts[item] ?? 0) + 1;
    const grantedMs = this.#options.now();
    const lease: Lease = {
      id: this.#options.nextLeaseId(),
      item,
      workerId,
      attempt,
      grantedMs,
      deadlineMs: grantedMs + this.#options.leaseTimeoutMs,
    };
    this.#attempts[item] = attempt;
    this.#states[item] = "leased";
    this.#leases.set(lease.id, lease);
    this.#active.set(lease.id, lease);
    return lease;
  }

  /** The lease, whether or not it still counts. */
  find(leaseId: number): Lease | undefined {
    return this.#leases.get(leaseId);
  }

  isDone(item: number): boolean {
    return this.#states[item] === "done";
  }

  /** @returns the lease, or undefined when it is unknown or its item is done: the result is stale. */
  complete(leaseId: number): Lease | undefined {
    const lease = this.#leases.get(leaseId);
    if (lease === undefined || this.#states[lease.item] === "done") return undefined;
    this.#states[lease.item] = "done";
    this.#numDone += 1;
    for (const other of [...this.#active.values()]) {
      if (other.item === lease.item) this.#active.delete(other.id);
    }
    return lease;
  }

  /**
   * Gives back what a worker had promised, or all but some of it.
   * @returns the leases whose items are pending again
   */
  releaseWorker(workerId: string, except: readonly number[] = []): readonly Lease[] {
    return this.#release(
      [...this.#active.values()].filter(
        (lease) => lease.workerId === workerId && !except.includes(lease.id),
      ),
    );
  }

  releaseLease(leaseId: number): readonly Lease[] {
    const lease = this.#active.get(leaseId);
    return lease === undefined ? [] : this.#release([lease]);
  }

  /** Offers overdue items to others. @returns their leases */
  expire(): readonly Lease[] {
    const now = this.#options.now();
    return this.#release([...this.#active.values()].filter((lease) => lease.deadlineMs <= now));
  }

  #release(leases: readonly Lease[]): readonly Lease[] {
    for (const lease of leases) this.#active.delete(lease.id);
    return leases.filter((lease) => {
      const stillLeased = [...this.#active.values()].some((other) => other.item === lease.item);
      if (this.#states[lease.item] !== "leased" || stillLeased) return false;
      this.#states[lease.item] = "pending";
      return true;
    });
  }
}
