import { z } from "zod";
import {
  countPairs,
  nextTokenField,
  pairLengthsField,
  rejectedTargetsField,
  rejectedTokensField,
} from "#lib/core/batch";
import type { ObjectiveJob } from "#lib/core/job";
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

/** Tokens of the chosen sequence. */
type NllTokens = "sequence" | "answer";

const fields = {
  ...betaField,
  orpo_nll_tokens: z
    .enum(["sequence", "answer"] satisfies NllTokens[])
    .default("sequence")
    .describe(
      "of objective: orpo, what the loss of the chosen sequence is a mean over: all its tokens, its prompt's too, as TRL has it, or those of the answer, as LLaMA-Factory has it",
    ),
};

/** The chosen sequence, and its answer's odds against the rejected one's, without a reference (Hong et al. 2024). */
export const orpo: Objective<typeof fields> = {
  kind: "orpo",
  unit: () => "pair",
  fields,
  comparesPairs: true,
  scoresTraining: true,
  settings: (config) => ({
    beta: config.beta,
    ...(config.orpo_nll_tokens === "sequence" ? {} : { nllTokens: config.orpo_nll_tokens }),
  }),
  notes: (job) => {
    const of = nllTokensOf(job) === "answer" ? "answers" : "sequences, prompts included";
    return [`ORPO: beta ${betaOf(job)}, the nll of the chosen ${of}`];
  },
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

/** What the loss of the chosen sequence is a mean over. */
export const nllTokensOf = ({ settings }: ObjectiveJob): NllTokens =>
  settings?.["nllTokens"] === "answer" ? "answer" : "sequence";
