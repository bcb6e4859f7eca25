import type { z } from "zod";

/** Keys of general data, beside which a run measures what it forgets. */
export const generalFields = (
  datasets: z.ZodType<string | (string | Record<string, unknown>)[]>,
) => ({
  general_dataset: datasets
    .nullable()
    .default(null)
    .describe(
      "general rows beside those of dataset, learnt of as the next token: their validation side tells what was forgotten, and replay and ewc_lambda use their training side",
    ),
  general_eval_dataset: datasets
    .nullable()
    .default(null)
    .describe(
      "files for the general validation side; null splits general_dataset by validation_split",
    ),
});
