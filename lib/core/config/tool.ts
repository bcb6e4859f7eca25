import { LockstepError } from "#lib/core/errors/index";
import type { ConfigKey } from "./fields.js";
import type { SourcedValue } from "./flags.js";

type Source = ReadonlyMap<string, SourcedValue>;

/** Keys that only LLaMA-Factory has: a file with one of them was written for it. */
const llamaFactoryMarks = ["stage", "finetuning_type", "template"];

/** Defaults of LLaMA-Factory that differ from ours and change results. */
const llamaFactoryDefaults: readonly (readonly [ConfigKey, unknown])[] = [
  ["max_length", 2048],
  ["validation_split", 0],
];

function isLlamaFactory(...sources: readonly Source[]): boolean {
  return llamaFactoryMarks.some((key) => sources.some((source) => source.has(key)));
}

/**
 * What the keys say of the way of fine-tuning. A file of LLaMA-Factory that does not name one would
 * train LoRA there, so it is not silently trained in full here.
 *
 * @throws E_CONFIG_MISSING_KEY
 */
export function checkTool(file: Source, flags: Source): { readonly method: unknown } {
  const method = flags.get("finetuning_type")?.value ?? file.get("finetuning_type")?.value;
  if (isLlamaFactory(file, flags) && (method ?? null) === null) {
    throw new LockstepError("E_CONFIG_MISSING_KEY", {
      key: "finetuning_type",
      meaning:
        "LLaMA-Factory's default is lora, which this version does not have; write full to train all weights",
    });
  }
  return { method };
}

/** Defaults of the tool that a file was written for, where the file does not set them itself. */
export function toolDefaults(
  file: Source,
  flags: Source,
  given: ReadonlyMap<ConfigKey, SourcedValue>,
  warnings: string[],
): [ConfigKey, SourcedValue][] {
  if (!isLlamaFactory(file, flags)) return [];
  if (isOn(given.get("packing")) && !isOn(flags.get("neat_packing") ?? file.get("neat_packing"))) {
    warnings.push(
      "packing: examples of a row never see each other here, as with neat_packing: true",
    );
  }
  const missing = llamaFactoryDefaults.filter(([key]) => !given.has(key));
  if (missing.length > 0) {
    const list = missing.map(([key, value]) => `${key}: ${String(value)}`).join(", ");
    warnings.push(`read as a file of LLaMA-Factory, whose defaults hold: ${list}`);
  }
  return missing.map(([key, value]) => [key, { value, where: "default of LLaMA-Factory" }]);
}

const isOn = (sourced: SourcedValue | undefined): boolean => sourced?.value === true;
