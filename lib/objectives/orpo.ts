import {
  countPairs,
  nextTokenField,
  pairLengthsField,
  rejectedTargetsField,
  rejectedTokensField,
} from "#lib/core/batch";
import type { Metric, Objective } from "./objective.js";
import {
  pairOutputs,
  pairScorer,
  preferenceFigures,
  preferenceMetrics,
  preferenceValues,
} from "./pair-scores.js";
import { betaField, betaOf } from "./preference-keys.js";

const figure = { greaterIsBetter: true, digits: 4, isRatio: false } as const;

const metrics: readonly Metric[] = [
  ...preferenceMetrics,
  {
    ...figure,
    key: "nll_loss",
    label: "nll",
    help: "Mean negative log-likelihood of a token of the chosen sequences in the latest evaluation.",
    greaterIsBetter: false,
  },
  {
    ...figure,
    key: "log_odds_chosen",
    label: "log odds",
    help: "Mean logarithm of the odds ratio of chosen and rejected answers in the latest evaluation.",
  },
  {
    ...figure,
    key: "log_odds_ratio",
    label: "log odds ratio",
    help: "Mean log-sigmoid of the logarithm of the odds ratio in the latest evaluation.",
  },
];

const figures = [...preferenceFigures, "nll", "logOddsChosen", "logOddsRatio"] as const;

/** The chosen sequence, and its answer's odds against the rejected one's, without a reference (Hong et al. 2024). */
export const orpo: Objective<typeof betaField> = {
  kind: "orpo",
  unit: () => "pair",
  fields: betaField,
  comparesPairs: true,
  scoresTraining: true,
  settings: (config) => ({ beta: config.beta }),
  notes: (job) => [`ORPO: beta ${betaOf(job)}`],
  metrics,
  targets: () => [nextTokenField, rejectedTokensField, rejectedTargetsField, pairLengthsField],
  weightOf: ({ [pairLengthsField.name]: lengths }) => countPairs(lengths),
  outputs: () => pairOutputs(figures),
  scorer: () =>
    pairScorer(figures, (pair) => ({
      ...preferenceValues(pair),
      nll_loss: pair.nll,
      log_odds_chosen: pair.logOddsChosen,
      log_odds_ratio: pair.logOddsRatio,
    })),
};
