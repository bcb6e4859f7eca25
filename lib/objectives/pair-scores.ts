import { type Batch, type BatchField, integerField, pairLengthsField } from "#lib/core/batch";
import type { Metric, Scorer } from "./objective.js";

/** Figures of a batch's pairs, one of each name a pair. */
export const pairOutputs = (figures: readonly string[]): BatchField => ({
  name: "pairs",
  dtype: "float32",
  perRow: figures.length,
});

/**
 * Means of what the model says of pairs, added in the order of the rows.
 *
 * @param figures names of the values of a pair
 * @param valuesOf the metrics of one pair, by their keys: their means are over pairs; or sums with how many were added,
 *   whose means are over these
 */
export function pairScorer<Name extends string>(
  figures: readonly Name[],
  valuesOf: (
    pair: Readonly<Record<Name, number>>,
  ) => Readonly<Record<string, number | readonly [sum: number, count: number]>>,
): Scorer {
  const totals = new Map<string, { sum: number; count: number }>();
  return {
    add(batch, outputs) {
      if (outputs?.length !== batch.numRows * figures.length) {
        throw new RangeError(`no ${figures.length} figures for each of ${batch.numRows} pairs`);
      }
      for (const row of countedPairs(batch)) {
        const pair = Object.fromEntries(
          figures.map((name, i) => [name, outputs[row * figures.length + i]]),
        ) as Record<Name, number>;
        for (const [key, value] of Object.entries(valuesOf(pair))) {
          const [sum, count] = typeof value === "number" ? [value, 1] : value;
          const before = totals.get(key) ?? { sum: 0, count: 0 };
          totals.set(key, { sum: before.sum + sum, count: before.count + count });
        }
      }
    },
    values: () =>
      Object.fromEntries([...totals].map(([key, { sum, count }]) => [key, sum / count])),
  };
}

/** The rows of a batch that are no padding. */
export function countedPairs(batch: Batch): readonly number[] {
  const lengths = integerField(batch, pairLengthsField.name);
  return Array.from({ length: batch.numRows }, (_, row) => row).filter(
    (row) => (lengths[2 * row] ?? 0) > 0,
  );
}

const figure = { greaterIsBetter: true, digits: 4, isRatio: false } as const;

/** Those of TRL, by its names. */
export const preferenceMetrics: readonly Metric[] = [
  {
    ...figure,
    key: "rewards/chosen",
    label: "chosen reward",
    help: "Mean reward of the chosen answers in the latest evaluation.",
  },
  {
    ...figure,
    key: "rewards/rejected",
    label: "rejected reward",
    help: "Mean reward of the rejected answers in the latest evaluation.",
    greaterIsBetter: false,
  },
  {
    ...figure,
    key: "rewards/accuracies",
    label: "reward accuracy",
    help: "Share of the pairs whose chosen answer has the larger reward.",
    isRatio: true,
    isOfSteps: true,
  },
  {
    ...figure,
    key: "rewards/margins",
    label: "reward margin",
    help: "Mean difference of the rewards of chosen and rejected answers in the latest evaluation.",
    isOfSteps: true,
  },
  {
    ...figure,
    key: "logps/chosen",
    label: "chosen log-likelihood",
    help: "Mean log-likelihood of the chosen answers in the latest evaluation.",
    digits: 2,
  },
  {
    ...figure,
    key: "logps/rejected",
    label: "rejected log-likelihood",
    help: "Mean log-likelihood of the rejected answers in the latest evaluation.",
    greaterIsBetter: false,
    digits: 2,
  },
];

export const preferenceFigures = [
  "chosenReward",
  "rejectedReward",
  "chosenLogp",
  "rejectedLogp",
] as const;

/** The metrics of one pair. */
export const preferenceValues = (
  pair: Readonly<Record<(typeof preferenceFigures)[number], number>>,
): Readonly<Record<string, number>> => ({
  "rewards/chosen": pair.chosenReward,
  "rewards/rejected": pair.rejectedReward,
  "rewards/accuracies": pair.chosenReward > pair.rejectedReward ? 1 : 0,
  "rewards/margins": pair.chosenReward - pair.rejectedReward,
  "logps/chosen": pair.chosenLogp,
  "logps/rejected": pair.rejectedLogp,
});
