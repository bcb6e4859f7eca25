import type { LossSum } from "#lib/core/job";

/** What one lease brought so far of its group: sums by a report, bytes by pushes to the shards. */
interface Result {
  readonly workerId: string;
  sum: LossSum | undefined;
  /** Equal for equal reports. */
  reportKey: string | undefined;
  /** By shard, of the bytes that came. */
  readonly digests: (string | undefined)[];
}

/** What the results of a group say together. */
export type Verdict =
  | {
      readonly kind: "open";
      /** Results that are still wanted. */
      readonly numMissing: number;
      /** Workers that computed different bits, where some did. */
      readonly divided: readonly string[];
    }
  | {
      readonly kind: "agreed";
      readonly sum: LossSum;
      readonly lease: number;
      readonly workerId: string;
      /** Whose bits are others. */
      readonly dissenters: readonly string[];
      /** Whether every shard keeps bytes of the group, and whether they are the agreed ones. */
      readonly bytes: "missing" | "other" | "kept";
    };

/**
 * What workers computed for one item: a gradient group, or, with no shards, an evaluation's batch. One result is
 * enough where nothing speaks against it; where two differ, the bits that more workers have than any others
 * count, of two at least.
 */
export class GroupResults {
  readonly #numShards: number;
  /** By lease. They outlast a restart of the step: what was computed then was computed. */
  readonly #results = new Map<number, Result>();
  /** By shard: the digest of the bytes that it keeps. */
  #kept: (string | undefined)[] = [];
  #numNeeded: number;
  /** Whether those must be of different workers. */
  readonly #isVerified: boolean;

  constructor(options: { readonly numShards: number; readonly isVerified: boolean }) {
    this.#numShards = options.numShards;
    this.#isVerified = options.isVerified;
    this.#numNeeded = options.isVerified ? 2 : 1;
    this.restart();
  }

  /** Shards keep nothing of the group any more. */
  restart(): void {
    this.#kept = Array.from({ length: this.#numShards }, () => undefined);
  }

  /** One more result must say the same; of another worker where there is one. */
  requireSecond(): void {
    this.#numNeeded = 2;
  }

  /** @param key equal for reports that say the same */
  reported(lease: number, workerId: string, sum: LossSum, key: string): void {
    const result = this.#resultOf(lease, workerId);
    result.sum ??= sum;
    result.reportKey ??= key;
  }

  /**
   * A lease counts no longer: what was said under it without a byte was nothing that anybody computed.
   * @returns whether something was forgotten
   */
  forgetReport(lease: number): boolean {
    const hasBytes = this.#results.get(lease)?.digests.some((digest) => digest !== undefined);
    return hasBytes === false && this.#results.delete(lease);
  }

  arrived(lease: number, workerId: string, shard: number, digest: string): void {
    this.#resultOf(lease, workerId).digests[shard] ??= digest;
    this.#kept[shard] ??= digest;
  }

  /** Whether all of a lease's result is here. */
  isComplete(lease: number): boolean {
    const result = this.#results.get(lease);
    return result !== undefined && this.#keyOf(result) !== undefined;
  }

  /** Whole results of a worker. */
  numResultsOf(workerId: string): number {
    return this.#complete().filter(({ result }) => result.workerId === workerId).length;
  }

  get verdict(): Verdict {
    const complete = this.#complete();
    const divided = this.#divided();
    const supporters = new Map<string, Set<string>>();
    for (const { key, result } of complete) {
      supporters.set(key, (supporters.get(key) ?? new Set()).add(result.workerId));
    }
    const ranked = [...supporters].sort(([, one], [, other]) => other.size - one.size);
    const [first, second] = ranked;
    const numSame = first?.[1].size ?? 0;
    const isEnough =
      divided.length === 0
        ? (this.#isVerified ? numSame : complete.length) >= this.#numNeeded
        : numSame >= 2 && numSame > (second?.[1].size ?? 0);
    if (first === undefined || !isEnough) {
      const numMissing = divided.length > 0 ? 1 : Math.max(1, this.#numNeeded - complete.length);
      return { kind: "open", numMissing, divided };
    }
    const agreed = complete.find(({ key }) => key === first[0]) as (typeof complete)[number];
    const { sum, workerId, digests } = agreed.result;
    const dissenters = [...this.#results.values()]
      .filter((result) => differs(result, agreed.result))
      .map((result) => result.workerId);
    const bytes = this.#kept.some((digest) => digest === undefined)
      ? "missing"
      : this.#kept.some((digest, shard) => digest !== digests[shard])
        ? "other"
        : "kept";
    return {
      kind: "agreed",
      ...{ sum: sum as LossSum, lease: agreed.lease, workerId, bytes },
      dissenters: [...new Set(dissenters)],
    };
  }

  #resultOf(lease: number, workerId: string): Result {
    let result = this.#results.get(lease);
    if (result === undefined) {
      const digests = Array.from({ length: this.#numShards }, () => undefined);
      result = { workerId, sum: undefined, reportKey: undefined, digests };
      this.#results.set(lease, result);
    }
    return result;
  }

  #complete(): { readonly lease: number; readonly result: Result; readonly key: string }[] {
    return [...this.#results].flatMap(([lease, result]) => {
      const key = this.#keyOf(result);
      return key === undefined ? [] : [{ lease, result, key }];
    });
  }

  #keyOf({ reportKey, digests }: Result): string | undefined {
    if (reportKey === undefined || digests.some((digest) => digest === undefined)) return undefined;
    return [reportKey, ...digests].join(" ");
  }

  /** Workers of results that cannot both be right. */
  #divided(): string[] {
    const all = [...this.#results.values()];
    const workers = all.filter((one) => all.some((other) => differs(one, other)));
    return [...new Set(workers.map(({ workerId }) => workerId))];
  }
}

/** Whether two results, whole or not, say different things. */
function differs(one: Result, other: Result): boolean {
  const isOther = (a: string | undefined, b: string | undefined): boolean =>
    a !== undefined && b !== undefined && a !== b;
  return (
    isOther(one.reportKey, other.reportKey) ||
    one.digests.some((digest, shard) => isOther(digest, other.digests[shard]))
  );
}
