import { adapter } from "./adapter.js";
import { bitfit } from "./bitfit.js";
import { freeze } from "./freeze.js";
import { full } from "./full.js";
import type { ParametersKind } from "./kind.js";
import { rateFields } from "./rates.js";
import { unfreezingFields } from "./unfreezing.js";
import { lora } from "./lora.js";
import { prompt } from "./prompt.js";

export type { ChosenParameters, ParametersKind } from "./kind.js";
export type { StartingModel, TaskModel } from "./model.js";
export { checkRates, ratesOf } from "./rates.js";
export { checkUnfreezing, unfreezingOf } from "./unfreezing.js";

/** Keys of what is not the same for all that is trained. */
export const partFields = { ...rateFields, ...unfreezingFields };

/** Every way to choose what is trained, one a line. */
export const parametersKinds = [
  full,
  lora,
  freeze,
  bitfit,
  prompt,
  adapter,
] as const satisfies readonly ParametersKind[];

/** Values of `finetuning_type`. */
export const parametersNames: readonly string[] = parametersKinds.map(({ name }) => name);

/** The way that a configuration chooses: by name, else adapters where `use_peft` asks for them. */
export function parametersKindOf(config: {
  readonly finetuning_type: string | null;
  readonly use_peft: boolean;
}): ParametersKind {
  const name = config.finetuning_type ?? (config.use_peft ? lora.name : full.name);
  const kind = parametersKinds.find((each) => each.name === name);
  if (kind === undefined) throw new RangeError(`No way to choose parameters is called ${name}`);
  return kind;
}
