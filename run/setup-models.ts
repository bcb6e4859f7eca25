import { setUpCommandLine } from "#lib/core/paths";

/** Models that `scripts/setup.mjs --model NAME` brings, by their names in the cache's `models/`. */
export const setUpModels: readonly string[] = ["SmolLM2-135M-Instruct", "all-MiniLM-L6-v2"];

/** What a person types where a model is not there; undefined for models that the set-up does not know. */
export function setUpCommand(model: string): string | undefined {
  if (!setUpModels.includes(model)) return undefined;
  return `${setUpCommandLine} --model${model === setUpModels[0] ? "" : ` ${model}`}`;
}
