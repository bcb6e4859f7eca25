import { z } from "zod";
import { LockstepError } from "#lib/core/errors/index";
import type { ObjectiveJob } from "#lib/core/job";

/** Name and default of TRL's DPO and ORPO. */
export const betaField = {
  beta: z
    .number()
    // IPO squares its reciprocal, in float32.
    .min(1e-6)
    .max(1e6)
    .default(0.1)
    .describe(
      "of objective: dpo, how much the model is held to where it began; of orpo, the weight of the odds ratio",
    ),
};

export const preferenceLosses = ["sigmoid", "ipo", "hinge", "robust"] as const;

/** Name of TRL, for the loss of DPO and of SFT. */
export const lossTypeField = {
  loss_type: z
    .enum(["nll", ...preferenceLosses])
    .nullable()
    .default(null)
    .describe(
      "loss of objective: dpo, as TRL names it (sigmoid, ipo, hinge, robust); null: sigmoid, and of the next token nll",
    ),
};

/** @throws E_CONFIG_CONFLICT for a loss of answers where the next token is learnt, and the other way */
export function checkLossType(lossType: string | null, kind: string, isOfAnswers: boolean): void {
  if (lossType === null || (lossType !== "nll") === isOfAnswers) return;
  throw new LockstepError("E_CONFIG_CONFLICT", {
    keys: "loss_type and objective",
    reason:
      lossType === "nll"
        ? "nll is the loss of objective: causal_lm, which learns answers alone"
        : `${lossType} is a loss of objective: dpo, and ${kind} is what is learnt`,
  });
}

export function betaOf({ settings }: ObjectiveJob): number {
  const beta = settings?.["beta"];
  return typeof beta === "number" ? beta : 0.1;
}
