import { z } from "zod";
import {
  countPairs,
  nextTokenField,
  pairLengthsField,
  rejectedTargetsField,
  rejectedTokensField,
} from "#lib/core/batch";
import { LockstepError } from "#lib/core/errors/index";
import type { ObjectiveJob } from "#lib/core/job";
import type { Metric, Objective } from "./objective.js";
import {
  pairOutputs,
  pairScorer,
  preferenceFigures,
  preferenceMetrics,
  preferenceValues,
} from "./pair-scores.js";
import {
  betaField,
  betaOf,
  checkLossType,
  lossTypeField,
  preferenceLosses,
} from "./preference-keys.js";

const figure = { digits: 4, isRatio: false } as const;

/** Those of TRL, by its names. */
const metrics: readonly Metric[] = [
  ...preferenceMetrics,
  {
    ...figure,
    key: "logits/chosen",
    label: "chosen logits",
    help: "Mean logit of the chosen answers' tokens over the vocabulary in the latest evaluation.",
    greaterIsBetter: true,
  },
  {
    ...figure,
    key: "logits/rejected",
    label: "rejected logits",
    help: "Mean logit of the rejected answers' tokens over the vocabulary in the latest evaluation.",
    greaterIsBetter: false,
  },
  {
    ...figure,
    key: "mean_token_accuracy",
    label: "token accuracy",
    help: "Share of the chosen answers' tokens that are the likeliest next ones.",
    greaterIsBetter: true,
    isRatio: true,
  },
  {
    ...figure,
    key: "entropy",
    label: "entropy",
    help: "Mean entropy of the next token over both answers in the latest evaluation, nats.",
    greaterIsBetter: false,
  },
];

/** Behind the rewards and log-likelihoods sums over the tokens of answers, and how many these are. */
const figures = [
  ...preferenceFigures,
  ...(["chosenLogits", "rejectedLogits", "entropy", "numRight"] as const),
  ...(["chosenTokens", "rejectedTokens"] as const),
] as const;

type LossType = (typeof preferenceLosses)[number];

/** Names and defaults of TRL. */
const fields = {
  ...betaField,
  ...lossTypeField,
  label_smoothing: z
    .number()
    .min(0)
    .lt(0.5)
    .default(0)
    .describe(
      "share of the pairs whose answers are taken to be swapped: of loss_type sigmoid (conservative DPO) and robust",
    ),
};

/** The rows' answers against each other, as far as the model has moved from where it began (Rafailov et al. 2023). */
export const dpo: Objective<typeof fields> = {
  kind: "dpo",
  unit: () => "pair",
  fields,
  comparesPairs: true,
  hasReference: true,
  scoresTraining: true,
  settings: (config) => {
    const { beta, loss_type: lossType, label_smoothing: labelSmoothing } = config;
    checkLossType(lossType, "dpo", true);
    if (labelSmoothing > 0 && (lossType === "ipo" || lossType === "hinge")) {
      throw new LockstepError("E_CONFIG_CONFLICT", {
        keys: "label_smoothing and loss_type",
        reason: `${lossType} is a loss without swapped pairs; sigmoid and robust have them`,
      });
    }
    return {
      beta,
      lossType: lossType ?? "sigmoid",
      ...(labelSmoothing === 0 ? {} : { labelSmoothing }),
    };
  },
  notes: (job) => {
    const { beta, lossType, labelSmoothing } = dpoSettings(job);
    const swapped = labelSmoothing === 0 ? "" : `, label_smoothing ${labelSmoothing}`;
    return [`DPO: loss_type ${lossType}, beta ${beta}${swapped}`];
  },
  metrics,
  targets: () => [nextTokenField, rejectedTokensField, rejectedTargetsField, pairLengthsField],
  weightOf: ({ [pairLengthsField.name]: lengths }) => countPairs(lengths),
  outputs: () => pairOutputs(figures),
  scorer: () =>
    pairScorer(figures, (pair) => ({
      ...preferenceValues(pair),
      "logits/chosen": [pair.chosenLogits, pair.chosenTokens],
      "logits/rejected": [pair.rejectedLogits, pair.rejectedTokens],
      mean_token_accuracy: [pair.numRight, pair.chosenTokens],
      entropy: [pair.entropy, pair.chosenTokens + pair.rejectedTokens],
    })),
};

/** What a job of this objective is set to. */
export function dpoSettings(job: ObjectiveJob): {
  readonly beta: number;
  readonly lossType: LossType;
  readonly labelSmoothing: number;
} {
  const { lossType, labelSmoothing } = job.settings ?? {};
  return {
    beta: betaOf(job),
    lossType: preferenceLosses.find((known) => known === lossType) ?? "sigmoid",
    labelSmoothing: typeof labelSmoothing === "number" ? labelSmoothing : 0,
  };
}
