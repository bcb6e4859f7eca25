import { z } from "zod";
import type { ObjectiveJob, ObjectiveSettings } from "#lib/core/job";

/** The auxiliary loss of PaLM (Chowdhery et al. 2022, section 5). */
export const zLossFields = {
  z_loss_weight: z
    .number()
    .refine((weight) => weight === 0 || (weight >= 1e-12 && weight <= 1), {
      message: "0, or a number of 1e-12 to 1",
    })
    .default(0)
    .describe(
      "z of a loss z * log(Z)^2 beside that of each target in training, Z the sum of exponentials of the logits; keeps log(Z) near 0 (PaLM: 1e-4)",
    ),
};

const setting = "zLossWeight";

export const zLossSettings = (config: { readonly z_loss_weight: number }): ObjectiveSettings =>
  config.z_loss_weight === 0 ? {} : { [setting]: config.z_loss_weight };

/** By how much the squares of log Z count in a job's loss; 0: not at all. */
export function zLossWeightOf({ settings }: ObjectiveJob): number {
  const value = settings?.[setting];
  return typeof value === "number" ? value : 0;
}

/** What a person is told. */
export const zLossNotes = (job: ObjectiveJob): readonly string[] =>
  zLossWeightOf(job) === 0
    ? []
    : [
        `training losses hold z_loss_weight ${zLossWeightOf(job)} times log(Z)^2 of each target; those of evaluations do not`,
      ];

/** The objective as evaluations have it: they measure how well targets are foretold, and nothing else. */
export function evaluatedObjective(job: ObjectiveJob): ObjectiveJob {
  if (zLossWeightOf(job) === 0) return job;
  const { [setting]: _, ...settings } = job.settings ?? {};
  return { ...job, settings };
}
