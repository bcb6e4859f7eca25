import { ignoredTarget, nextTokenField } from "#lib/core/batch";
import { sumOfWeights, tokenWeightsField } from "#lib/core/loss-weights";
import {
  labelSmoothingFields,
  labelSmoothingOf,
  labelSmoothingSettings,
} from "./label-smoothing.js";
import type { Metric, Objective } from "./objective.js";
import { checkLossType, lossTypeField } from "./preference-keys.js";
import { zLossFields, zLossNotes, zLossSettings } from "./z-loss.js";

const perplexity: Metric = {
  key: "perplexity",
  label: "perplexity",
  help: "Validation perplexity of the latest evaluation.",
  greaterIsBetter: false,
  digits: 2,
  isRatio: false,
  ofLoss: Math.exp,
};

const fields = { ...labelSmoothingFields, ...zLossFields, ...lossTypeField };

/** The next token of every supervised position: its negative log-likelihood, nats. */
export const causalLm: Objective<typeof fields> = {
  kind: "causal_lm",
  unit: ({ isWeighted }) => (isWeighted === true ? "weighted token" : "token"),
  fields,
  settings: (config) => {
    checkLossType(config.loss_type, "causal_lm", false);
    return { ...labelSmoothingSettings(config), ...zLossSettings(config) };
  },
  notes: (job) => [
    ...(labelSmoothingOf(job) === 0
      ? []
      : [
          `losses are of targets that label_smoothing_factor ${labelSmoothingOf(job)} smooths, in evaluations too, and perplexity is e to that loss`,
        ]),
    ...zLossNotes(job),
  ],
  metrics: [perplexity],
  targets: () => [nextTokenField],
  weights: tokenWeightsField,
  weightOf: (fields) => sumOfWeights(fields[nextTokenField.name], fields[tokenWeightsField.name]),
  // Labels are those of the tokens themselves: position i predicts i + 1.
  targetsOfLabels: ({ labels, rowLength }) => ({
    [nextTokenField.name]: Int32Array.from(labels, (_, index) =>
      (index + 1) % rowLength === 0 ? ignoredTarget : (labels[index + 1] as number),
    ),
  }),
};
