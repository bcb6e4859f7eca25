import { z } from "zod";
import type { CommonKeys } from "./kind.js";

// What Adam and its descendants have alike.

/** Decay rates of moments, by transformers' names. */
export const betaFields = {
  adam_beta1: z.number().min(0).lt(1).default(0.9),
  adam_beta2: z.number().min(0).lt(1).default(0.999),
};

/**
 * Least of a number that keeps a division from 0 / 0: in float32 it is still one, with Adam's corrections too. 0 makes
 * weights that never had a gradient, as rows of an embedding table, no numbers.
 */
export const leastEpsilon = 1e-37;

export const adamFields = {
  ...betaFields,
  adam_epsilon: z.number().min(leastEpsilon).default(1e-8),
};

interface AdamKeys extends CommonKeys {
  readonly adam_beta1: number;
  readonly adam_beta2: number;
  readonly adam_epsilon: number;
}

export const adamSettings = (config: AdamKeys) => ({
  beta1: config.adam_beta1,
  beta2: config.adam_beta2,
  epsilon: config.adam_epsilon,
  weightDecay: config.weight_decay,
});

/**
 * What `setAdamFactors` of lib/optim/assembly/lib/adam.ts takes, in its order: computed in float64 and rounded once,
 * as torch does.
 *
 * @param updateNumber 1 for the first update
 */
export function adamFactors(
  { beta1, beta2, epsilon }: ReturnType<typeof adamSettings>,
  { learningRate, updateNumber }: { readonly learningRate: number; readonly updateNumber: number },
) {
  const biasCorrection1 = 1 - beta1 ** updateNumber;
  const biasCorrection2 = 1 - beta2 ** updateNumber;
  return [
    1 - beta1,
    beta2,
    1 - beta2,
    -(learningRate / biasCorrection1),
    Math.sqrt(biasCorrection2),
    epsilon,
  ] as const;
}
