import { LockstepError } from "#lib/core/errors/index";
import type { LossSum } from "#lib/core/job";
import { GroupResults, type Verdict } from "./group-results.js";
import type { LeaseTable } from "./leases.js";

/** Computations of one item by one worker, where workers disagree. */
const maxResultsOfWorker = 2;

/** Who is there, and what is told of those whose results differ. */
export interface Jury {
  /** Members of now that ask for work. */
  readonly present: () => readonly string[];
  /** Whether an item is computed by two workers: a seeded share of them. @param item of this work */
  readonly isVerified: (item: number) => boolean;
  /** Workers computed different bits. */
  readonly onDivided: (item: number, workers: readonly string[]) => void;
  /** All that a worker computed of an item is with a shard. */
  readonly onArrived: (worker: string) => void;
  /** A worker's whole result of an item is here, its bytes included. */
  readonly onResult: (worker: string) => void;
  /** What a worker said that it sent did not come. */
  readonly onBroken: (worker: string, reason: string) => void;
  /** Others agree on other bits than this worker's. */
  readonly onDissent: (item: number, worker: string) => void;
}

/** The results of a work's items: who computed what, who may compute it again, and what they agree on. */
export class ComparedWork {
  readonly #items: readonly GroupResults[];
  readonly #jury: Jury;
  readonly #what: (item: number) => { readonly step: number; readonly group: number };
  readonly #told = new Set<string>();

  constructor(options: {
    readonly numItems: number;
    readonly numShards: number;
    readonly jury: Jury;
    /** Names an item, for an error. */
    readonly what: (item: number) => { readonly step: number; readonly group: number };
  }) {
    const { numItems, numShards, jury } = options;
    this.#jury = jury;
    this.#what = options.what;
    this.#items = Array.from(
      { length: numItems },
      (_, item) => new GroupResults({ numShards, isVerified: jury.isVerified(item) }),
    );
  }

  of(item: number): GroupResults {
    return this.#items[item] as GroupResults;
  }

  verdicts(): readonly Verdict[] {
    return this.#items.map(({ verdict }) => verdict);
  }

  /** The sums of all items, in order. @throws RangeError while one is open */
  sums(): readonly LossSum[] {
    return this.verdicts().map((verdict, item) => {
      if (verdict.kind === "open") throw new RangeError(`Item ${item} is open`);
      return verdict.sum;
    });
  }

  /** Opens an item in a table for as many results as it still wants. */
  setWanted(leases: LeaseTable): void {
    for (const [item, { verdict }] of this.#items.entries()) leases.want(item, numWanted(verdict));
  }

  /**
   * Whoever has computed an item leaves it to the others, as long as there are some. Where only bytes are wanted
   * that are known already, anybody may bring them.
   */
  mayTake(item: number, workerId: string, leases: LeaseTable): boolean {
    if (leases.holds(workerId, item)) return false;
    const results = this.of(item);
    const { verdict } = results;
    if (verdict.kind === "agreed" || results.numResultsOf(workerId) === 0) return true;
    if (this.#jury.present().some((other) => results.numResultsOf(other) === 0)) return false;
    if (verdict.divided.length > 0) return results.numResultsOf(workerId) < maxResultsOfWorker;
    return !this.#jury.isVerified(item);
  }

  /**
   * Looks at an item after something of it has come.
   * @returns what its results say
   * @throws E_GROUP_DIVERGED where they differ and nobody is left to ask
   */
  judge(item: number, leases: LeaseTable): Verdict {
    const results = this.of(item);
    const { verdict } = results;
    leases.want(item, numWanted(verdict));
    if (verdict.kind === "agreed") {
      for (const worker of verdict.dissenters) {
        if (this.#isNew(`dissent ${item} ${worker}`)) this.#jury.onDissent(item, worker);
      }
      return verdict;
    }
    if (verdict.divided.length > 0) {
      if (this.#isNew(`divided ${item} ${verdict.divided.join(" ")}`)) {
        this.#jury.onDivided(item, verdict.divided);
      }
      const canAsk = this.#jury
        .present()
        .some((worker) => results.numResultsOf(worker) < maxResultsOfWorker);
      if (!canAsk && leases.numActive(item) === 0) {
        const workers = verdict.divided.join(", ");
        throw new LockstepError("E_GROUP_DIVERGED", { ...this.#what(item), workers });
      }
    }
    return verdict;
  }

  #isNew(fact: string): boolean {
    if (this.#told.has(fact)) return false;
    this.#told.add(fact);
    return true;
  }
}

/** Leases that an item should have. */
function numWanted(verdict: Verdict): number {
  if (verdict.kind === "open") return verdict.numMissing;
  return verdict.bytes === "missing" ? 1 : 0;
}
