import { z } from "zod";
import { modelDropoutKinds } from "#lib/core/dropout";

const dropoutRate = z.number().min(0).lt(1);

/** Keys of what training does at random inside the model. */
export const randomFields = {
  dropout: z
    .union([dropoutRate, z.partialRecord(z.enum(modelDropoutKinds), dropoutRate)])
    .nullable()
    .default(null)
    .describe(
      "rate at which training drops values, of every kind that the model has, or by kind: {attention: 0}; null: as the model's config.json has it",
    ),
  disable_dropout: z
    .boolean()
    .nullable()
    .default(null)
    .describe(
      "true: training drops nothing, of adapters neither; null: so it is where the run learns from pairs, unless dropout has rates (name of TRL)",
    ),
  neftune_noise_alpha: z
    .number()
    .refine((alpha) => alpha === 0 || (alpha >= 1e-6 && alpha <= 1e6), {
      message: "0, or a number of 1e-6 to 1e6",
    })
    .nullable()
    .default(null)
    .describe(
      "alpha of NEFTune: in training the vectors of tokens get uniform noise of up to alpha / sqrt(L * D), L the tokens of the longest row of a micro-batch, D the width; 0 or null: none",
    ),
};
