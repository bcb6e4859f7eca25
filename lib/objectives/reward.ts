import { z } from "zod";
import { countPairs, marginField, pairLengthsField, rejectedTokensField } from "#lib/core/batch";
import type { ObjectiveJob } from "#lib/core/job";
import type { Metric, Objective } from "./objective.js";
import { countedPairs, pairOutputs } from "./pair-scores.js";

/** Name and default of TRL. */
const fields = {
  center_rewards_coefficient: z
    .number()
    .min(1e-6)
    .max(1e6)
    .nullable()
    .default(null)
    .describe(
      "of objective: reward, weight of the square of the sum of a pair's two rewards, which holds rewards around 0; null: none",
    ),
};

const figure = { greaterIsBetter: true, digits: 4, isRatio: false } as const;

/** Those of TRL, by its names. */
const metrics: readonly Metric[] = [
  {
    ...figure,
    key: "accuracy",
    label: "accuracy",
    help: "Share of the rows whose class, or of the pairs whose chosen answer, is right.",
    isRatio: true,
    isOfSteps: true,
  },
  {
    ...figure,
    key: "margin",
    label: "margin",
    help: "Mean difference of a reward model's rewards of chosen and rejected answers in the latest evaluation.",
    isOfSteps: true,
  },
  {
    ...figure,
    key: "min_reward",
    label: "smallest reward",
    help: "Smallest reward of a reward model in the latest evaluation.",
  },
  {
    ...figure,
    key: "mean_reward",
    label: "mean reward",
    help: "Mean reward of a reward model in the latest evaluation.",
  },
  {
    ...figure,
    key: "max_reward",
    label: "largest reward",
    help: "Largest reward of a reward model in the latest evaluation.",
  },
];

const figures = ["chosenReward", "rejectedReward"] as const;

/** A number for a text, larger for the chosen answer of a pair than for the rejected one (Bradley and Terry). */
export const reward: Objective<typeof fields> = {
  kind: "reward",
  unit: () => "pair",
  fields,
  comparesPairs: true,
  scoresTraining: true,
  // To transformers it is a classifier of one label, whose logit is the reward.
  head: { labels: ["LABEL_0"], problemType: "regression" },
  settings: (config) =>
    config.center_rewards_coefficient === null
      ? {}
      : { centerRewards: config.center_rewards_coefficient },
  notes: (job) =>
    centerRewardsOf(job) === 0
      ? []
      : [`rewards are held around 0: center_rewards_coefficient ${centerRewardsOf(job)}`],
  metrics,
  targets: () => [rejectedTokensField, pairLengthsField, marginField],
  weightOf: ({ [pairLengthsField.name]: lengths }) => countPairs(lengths),
  outputs: () => pairOutputs(figures),
  scorer: () => {
    let [numPairs, numRight, margins, rewards] = [0, 0, 0, 0];
    let [smallest, largest] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
    return {
      add(batch, outputs) {
        if (outputs?.length !== batch.numRows * figures.length) {
          throw new RangeError(`no ${figures.length} figures for each of ${batch.numRows} pairs`);
        }
        for (const row of countedPairs(batch)) {
          const [chosen, rejected] = [outputs[2 * row] ?? 0, outputs[2 * row + 1] ?? 0];
          numPairs++;
          if (chosen > rejected) numRight++;
          margins += chosen - rejected;
          rewards += chosen + rejected;
          smallest = Math.min(smallest, chosen, rejected);
          largest = Math.max(largest, chosen, rejected);
        }
      },
      values: () => ({
        accuracy: numRight / numPairs,
        margin: margins / numPairs,
        min_reward: smallest,
        mean_reward: rewards / (2 * numPairs),
        max_reward: largest,
      }),
    };
  },
};

/** 0: rewards are not held around 0. */
export function centerRewardsOf({ settings }: ObjectiveJob): number {
  const coefficient = settings?.["centerRewards"];
  return typeof coefficient === "number" ? coefficient : 0;
}
