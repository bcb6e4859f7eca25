import type { ParametersKind } from "./kind.js";

/** Every weight of the model. */
export const full = {
  name: "full",
  title: "full fine-tuning",
  summary: "all weights are trained",
  turnedOnBy: ["finetuning_type", "full"],
  fields: {},
} as const satisfies ParametersKind<Record<never, never>>;
