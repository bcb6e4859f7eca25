import type { LossSum } from "#lib/core/job";

/** Added in order: the same bits whoever came first. */
export function addLossSums(sums: readonly LossSum[]): LossSum {
  let lossSum = 0;
  let weight = 0;
  for (const sum of sums) {
    lossSum += sum.lossSum;
    weight += sum.weight;
  }
  return { lossSum, weight };
}
