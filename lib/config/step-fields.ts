import { z } from "zod";

/** A whole number of steps, or a fraction below 1 of the run's steps. */
export const stepsOrFraction = z
  .number()
  .min(0)
  .refine((value) => value < 1 || Number.isInteger(value), {
    message: "a whole number of steps, or a fraction of the run below 1",
  });
export const positiveStepsOrFraction = stepsOrFraction.refine(
  (value) => value > 0,
  "a whole number of steps of at least 1, or a fraction of the run between 0 and 1",
);
