import { z } from "zod";
import type { ObjectiveJob, ObjectiveSettings } from "#lib/core/job";

/** Name and default of transformers. */
export const labelSmoothingFields = {
  label_smoothing_factor: z
    .number()
    .min(0)
    .lt(1)
    .default(0)
    .describe(
      "share of each target that is spread evenly over all tokens, or classes, in training and evaluation",
    ),
};

const setting = "labelSmoothing";

export const labelSmoothingSettings = (config: {
  readonly label_smoothing_factor: number;
}): ObjectiveSettings =>
  config.label_smoothing_factor === 0 ? {} : { [setting]: config.label_smoothing_factor };

/** The share of a job's targets that is spread over all classes; 0: targets are as they stand. */
export function labelSmoothingOf({ settings }: ObjectiveJob): number {
  const value = settings?.[setting];
  return typeof value === "number" ? value : 0;
}
