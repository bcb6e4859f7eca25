import { z } from "zod";
import type { ObjectiveJob } from "#lib/core/job";

/** Name and default of TRL's DPO and ORPO. */
export const betaField = {
  beta: z
    .number()
    .positive()
    .default(0.1)
    .describe(
      "of objective: dpo, how much the model is held to where it began; of orpo, the weight of the odds ratio",
    ),
};

export function betaOf({ settings }: ObjectiveJob): number {
  const beta = settings?.["beta"];
  return typeof beta === "number" ? beta : 0.1;
}
