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
import type { Objective } from "./objective.js";
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
  metrics: preferenceMetrics,
  targets: () => [nextTokenField, rejectedTokensField, rejectedTargetsField, pairLengthsField],
  weightOf: ({ [pairLengthsField.name]: lengths }) => countPairs(lengths),
  outputs: () => pairOutputs(preferenceFigures),
  scorer: () => pairScorer(preferenceFigures, preferenceValues),
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
