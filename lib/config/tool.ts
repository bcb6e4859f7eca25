import { axolotlDefaults, refusePerEpoch } from "./axolotl-file.js";
import type { ConfigKey } from "./fields.js";
import type { SourcedValue } from "./flags.js";
import { foreignTables } from "./foreign-keys.js";
import { preferenceKeys } from "./preference-file.js";
import { placeOf } from "./given-keys.js";
import { quantisationOf } from "./parameters-choice.js";

type Source = ReadonlyMap<string, SourcedValue>;

/** Keys that only LLaMA-Factory has: a file with one of them was written for it. */
const llamaFactoryMarks = ["stage", "template"];

/** Defaults of LLaMA-Factory that differ from ours and change results. */
const llamaFactoryDefaults: readonly (readonly [ConfigKey, unknown])[] = [
  ["max_length", 2048],
  ["validation_split", 0],
];

const defaultPlace = "default of LLaMA-Factory";

/** Whether the length of rows is LLaMA-Factory's `cutoff_len`, which cuts elsewhere. */
export function isCutoffLength(config: object): boolean {
  const where = placeOf(config, "max_length");
  return where === defaultPlace || where.endsWith(", given as cutoff_len");
}

/** What QLoRA is in the tools that have a word for it. */
const doubleQuantisation: [ConfigKey, unknown] = ["bnb_4bit_use_double_quant", true];

/** What a file of LLaMA-Factory trains that does not name its `finetuning_type`, and how. */
const loraDefaults = (given: ReadonlyMap<ConfigKey, SourcedValue>): [ConfigKey, unknown][] => [
  ["use_peft", true],
  // An adapter that is trained further has its own.
  ...((given.get("adapter_name_or_path")?.value ?? null) !== null
    ? []
    : ([
        ["lora_alpha", 2 * Number(given.get("lora_r")?.value ?? 8)],
        ["lora_target_modules", "all-linear"],
      ] satisfies [ConfigKey, unknown][])),
  ...(isOn(given.get("load_in_4bit")) ? [doubleQuantisation] : []),
];

function isLlamaFactory(...sources: readonly Source[]): boolean {
  const has = (key: string): boolean => sources.some((source) => source.has(key));
  if (llamaFactoryMarks.some(has)) return true;
  // A name of ours too: beside one that only that tool has it is the tool's.
  const names = (source: Source): boolean =>
    (source.get("finetuning_type")?.value ?? null) !== null;
  return sources.some(names) && Object.keys(foreignTables["LLaMA-Factory"] ?? {}).some(has);
}

/** Defaults of the tool that a file was written for, where the file does not set them itself. */
export function toolDefaults(
  file: Source,
  flags: Source,
  given: ReadonlyMap<ConfigKey, SourcedValue>,
  warnings: string[],
): [ConfigKey, SourcedValue][] {
  const preferences = preferenceKeys(file, flags, given, warnings);
  if (!isLlamaFactory(file, flags)) {
    const adapter = flags.get("adapter") ?? file.get("adapter");
    return [
      ...preferences,
      ...axolotlDefaults(file, flags, given, warnings),
      ...(adapter?.value === "qlora" ? quantisationOf("adapter", adapter, given) : []),
    ];
  }
  refusePerEpoch("LLaMA-Factory", file, flags);
  if (isOn(given.get("packing")) && !isOn(flags.get("neat_packing") ?? file.get("neat_packing"))) {
    warnings.push(
      "packing: examples of a row never see each other here, as with neat_packing: true",
    );
  }
  const method = given.get("use_peft")?.value ?? true;
  const defaults: readonly (readonly [ConfigKey, unknown])[] = [
    ...llamaFactoryDefaults,
    ...(method === true ? loraDefaults(given) : []),
  ];
  const missing = defaults.filter(([key]) => !given.has(key));
  if (missing.length > 0) {
    const list = missing.map(([key, value]) => `${key}: ${String(value)}`).join(", ");
    warnings.push(`read as a file of LLaMA-Factory, whose defaults hold: ${list}`);
  }
  return [
    ...preferences,
    ...missing.map(([key, value]): [ConfigKey, SourcedValue] => [
      key,
      { value, where: defaultPlace },
    ]),
  ];
}

const isOn = (sourced: SourcedValue | undefined): boolean => sourced?.value === true;
