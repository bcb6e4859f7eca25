import { LockstepError } from "#lib/core/errors/index";
import { type ParametersKind, parametersKindOf, parametersKinds } from "#lib/parameters/index";
import { type ConfigKey, defaultOf, type ParsedConfig } from "./fields.js";
import type { SourcedValue } from "./flags.js";
import { fullOnly } from "./foreign/rules.js";
import { same, show } from "./show.js";
import { readSwitch } from "./switch-words.js";

/** The two names of one choice: a flag of either wins over both in a file. */
export const choiceKeys: readonly ConfigKey[] = ["finetuning_type", "use_peft"];

/** Values of `finetuning_type` in LLaMA-Factory that are not here, and what they are. */
const missingWays: Readonly<Record<string, string>> = { oft: "OFT" };

/** Other names of values of `finetuning_type`. */
const otherNames: Readonly<Record<string, string>> = { last_n: "freeze", qlora: "lora" };

/** The name that a value of `finetuning_type` has here. */
export const ownWay = (value: unknown): unknown =>
  typeof value === "string" && Object.hasOwn(otherNames, value) ? otherNames[value] : value;

/** @throws E_CONFIG_UNSUPPORTED for a way of another tool that is not here */
export function refuseMissingWay({ value, where }: SourcedValue): void {
  if (typeof value !== "string" || !Object.hasOwn(missingWays, value)) return;
  const reason = `${missingWays[value]} is not in this version: ${fullOnly}`;
  throw new LockstepError("E_CONFIG_UNSUPPORTED", {
    ...{ key: "finetuning_type", value: show(value), reason, where },
  });
}

/**
 * Gives `finetuning_type` the name that its value has here, and `use_peft` the value that it asks for.
 *
 * @throws E_CONFIG_CONFLICT where both are given and differ
 */
export function settleChoice(given: Map<ConfigKey, SourcedValue>, warnings: string[]): void {
  const named = given.get("finetuning_type");
  if (typeof named?.value !== "string") return;
  const { where } = named;
  const value = ownWay(named.value);
  if (value !== named.value) {
    warnings.push(`${where}: finetuning_type: ${named.value} is read as ${String(value)}`);
    given.set("finetuning_type", { value, where });
  }
  if (named.value === "qlora") {
    for (const [key, sourced] of quantisationOf("finetuning_type", named, given)) {
      given.set(key, sourced);
      warnings.push(`${where}: finetuning_type: qlora says ${key}: ${show(sourced.value)} too`);
    }
  }
  const usesPeft = value === "lora";
  const said = readSwitch(given.get("use_peft")?.value ?? null);
  if (said !== null && said !== usesPeft) {
    const reason = `both name what is trained (${where})`;
    throw new LockstepError("E_CONFIG_CONFLICT", { keys: "finetuning_type and use_peft", reason });
  }
  given.set("use_peft", { value: usesPeft, where });
}

/**
 * What QLoRA's name says of weights of 4 bits, where nobody says it.
 *
 * @param key that holds the name
 * @throws E_CONFIG_CONFLICT beside `load_in_4bit: false`
 */
export function quantisationOf(
  key: string,
  { where }: SourcedValue,
  given: ReadonlyMap<ConfigKey, SourcedValue>,
): [ConfigKey, SourcedValue][] {
  if (readSwitch(given.get("load_in_4bit")?.value ?? null) === false) {
    const reason = `QLoRA is LoRA over weights of 4 bits (${where})`;
    throw new LockstepError("E_CONFIG_CONFLICT", { keys: `${key} and load_in_4bit`, reason });
  }
  return (["load_in_4bit", "bnb_4bit_use_double_quant"] as const)
    .filter((each) => !given.has(each))
    .map((each) => [each, { value: true, where: `${where}, given as ${key}` }]);
}

/**
 * Keys of a way to choose parameters that is not the chosen one: without effect if the configuration names
 * its own, else a mistake.
 *
 * @throws E_CONFIG_MISSING_KEY; E_CONFIG_CONFLICT for one that cannot be left out
 */
export function checkChoice(
  config: ParsedConfig,
  given: ReadonlyMap<ConfigKey, SourcedValue>,
  warnings: string[],
): void {
  const chosen = parametersKindOf(config);
  const [choiceKey, choice] =
    config.finetuning_type === null
      ? (["use_peft", config.use_peft] as const)
      : (["finetuning_type", config.finetuning_type] as const);
  tellOfIdle(config, chosen, given, warnings);
  for (const {
    name,
    title,
    fields,
    turnedOnBy,
    demands = [],
  } of parametersKinds as readonly ParametersKind[]) {
    if (name === chosen.name) continue;
    for (const key of Object.keys(fields) as ConfigKey[]) {
      const sourced = given.get(key);
      if (choiceKeys.includes(key)) continue;
      if (sourced === undefined || same(sourced.value, defaultOf(key))) continue;
      if (!given.has(choiceKey)) {
        const [keyOfKind, value] = turnedOnBy;
        throw new LockstepError("E_CONFIG_MISSING_KEY", {
          key: keyOfKind,
          meaning: `${key} (${sourced.where}) is an option of ${title}, which ${keyOfKind}: ${String(value)} turns on`,
        });
      }
      if (demands.includes(key)) {
        throw new LockstepError("E_CONFIG_CONFLICT", {
          keys: `${key} and ${choiceKey}`,
          reason: `it is an option of ${title} (${sourced.where}), and ${choiceKey} is ${choice}`,
        });
      }
      warnings.push(`${sourced.where}: ${key} has no effect: ${choiceKey} is ${choice}`);
    }
  }
}

/** Says which options of the chosen way have no effect because another of its keys is off. */
function tellOfIdle(
  config: ParsedConfig,
  { onlyWith = {} }: ParametersKind,
  given: ReadonlyMap<ConfigKey, SourcedValue>,
  warnings: string[],
): void {
  for (const [needed, keys] of Object.entries(onlyWith)) {
    if (config[needed as ConfigKey] === true) continue;
    for (const key of keys as ConfigKey[]) {
      const sourced = given.get(key);
      if (sourced === undefined || same(sourced.value, defaultOf(key))) continue;
      warnings.push(`${sourced.where}: ${key} has no effect: ${needed} is false`);
    }
  }
}
