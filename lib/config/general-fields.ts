import { z } from "zod";

/** Keys of general data, beside which a run measures what it forgets, and forgets less. */
export const generalFields = (
  datasets: z.ZodType<string | (string | Record<string, unknown>)[]>,
) => ({
  general_dataset: datasets
    .nullable()
    .default(null)
    .describe(
      "general rows beside those of dataset, learnt of as the next token: their validation side tells what was forgotten, and ewc_lambda uses their training side",
    ),
  general_eval_dataset: datasets
    .nullable()
    .default(null)
    .describe(
      "files for the general validation side; null splits general_dataset by validation_split",
    ),
  ewc_lambda: z
    .number()
    .refine((lambda) => lambda === 0 || (lambda >= 1e-12 && lambda <= 1e12), {
      message: "0, or a number of 1e-12 to 1e12",
    })
    .default(0)
    .describe(
      "weight of the penalty of elastic weight consolidation, lambda / 2 * sum F (theta - theta0)^2; 0: there is none",
    ),
  ewc_samples: z
    .int()
    .min(1)
    .default(256)
    .describe("general training rows that the Fisher information F is measured on, before step 1"),
  ewc_normalize: z
    .boolean()
    .default(true)
    .describe(
      "F is scaled to a mean of 1 over all that is trained, so that ewc_lambda means the same for any model and rows",
    ),
});

interface EwcKeys {
  readonly ewc_lambda: number;
  readonly ewc_samples: number;
  readonly ewc_normalize: boolean;
}

const ewcOptions = ["ewc_samples", "ewc_normalize"] as const;

/** What decides the weights of a run: without a penalty none of the keys does. */
export const decisiveEwcSettings = (config: EwcKeys): Readonly<Record<string, unknown>> =>
  config.ewc_lambda === 0
    ? { ewc_lambda: null, ewc_samples: null, ewc_normalize: null }
    : {
        ewc_lambda: config.ewc_lambda,
        ewc_samples: config.ewc_samples,
        ewc_normalize: config.ewc_normalize,
      };

/** @param defaults of a file that has none of the keys */
export function checkGeneral(
  config: EwcKeys & {
    readonly general_dataset: unknown;
    readonly general_eval_dataset: unknown;
    readonly fp16: boolean | "auto";
  },
  defaults: (key: (typeof ewcOptions)[number]) => unknown,
  conflict: (keys: string, reason: string) => never,
): void {
  if (config.general_eval_dataset !== null && config.general_dataset === null) {
    const reason = "general rows that only validate say nothing of a run without general_dataset";
    conflict("general_eval_dataset and general_dataset", reason);
  }
  if (config.ewc_lambda === 0) {
    const unused = ewcOptions.find((key) => config[key] !== defaults(key));
    if (unused !== undefined) {
      conflict(`${unused} and ewc_lambda`, "without a penalty no Fisher information is measured");
    }
    return;
  }
  if (config.general_dataset === null) {
    const reason = "the Fisher information is measured on general rows, and there are none";
    conflict("ewc_lambda and general_dataset", reason);
  }
  if (config.fp16 === true) conflict("ewc_lambda and fp16", squaresInFp16);
}

/** Why a run in float16 has no penalty. */
export const squaresInFp16 =
  "squares of gradients leave float16's range in both directions; bf16 and float32 have it";
