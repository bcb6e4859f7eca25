import type { LossSum } from "#lib/core/job";

/**
 * What must have come together before a step may be applied: for every gradient group its loss sums
 * from a worker, and its bytes on every shard. Pure bookkeeping.
 */
export class StepRound {
  readonly step: number;
  readonly #losses: (LossSum | undefined)[];
  /** [shard][group] */
  readonly #arrived: boolean[][];
  #missing: number;

  constructor(options: {
    readonly step: number;
    readonly numGroups: number;
    readonly numShards: number;
  }) {
    this.step = options.step;
    this.#losses = Array.from({ length: options.numGroups }, () => undefined);
    this.#arrived = Array.from({ length: options.numShards }, () =>
      Array.from({ length: options.numGroups }, () => false),
    );
    this.#missing = options.numGroups * (1 + options.numShards);
  }

  get complete(): boolean {
    return this.#missing === 0;
  }

  /** The first report of a group counts. */
  groupReported(group: number, sum: LossSum): void {
    if (this.#losses[group] !== undefined) return;
    this.#losses[group] = sum;
    this.#missing -= 1;
  }

  groupArrived(shard: number, group: number): void {
    const arrived = this.#arrived[shard];
    if (arrived === undefined || arrived[group] !== false) return;
    arrived[group] = true;
    this.#missing -= 1;
  }

  /** Added in group order: the same bits whoever came first. */
  lossSum(): LossSum {
    return addLossSums(
      this.#losses.map((sum, group) => {
        if (sum === undefined) throw new RangeError(`Group ${group} has not reported`);
        return sum;
      }),
    );
  }
}

export function addLossSums(sums: readonly LossSum[]): LossSum {
  let lossSum = 0;
  let weight = 0;
  for (const sum of sums) {
    lossSum += sum.lossSum;
    weight += sum.weight;
  }
  return { lossSum, weight };
}
