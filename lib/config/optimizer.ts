import { z } from "zod";
import { LockstepError } from "#lib/core/errors/index";
import { type ChosenOptimizer, chooseOptimizer, optimizerOf } from "#lib/optim/optimizers/index";
import { describeType } from "./describe-type.js";
import { type ConfigKey, defaultOf, optimizerFields, type ParsedConfig } from "./fields.js";
import type { SourcedValue } from "./flags.js";
import { same } from "./show.js";

type OptimizerConfig = Pick<
  ParsedConfig,
  "optim" | "optim_args" | "weight_decay" | keyof typeof optimizerFields
>;

/**
 * The optimizer that a configuration names, with its settings.
 *
 * @param where where `optim_args` is given
 * @throws E_CONFIG_INVALID for arguments that the optimizer does not have, or of another type;
 *   E_CONFIG_CONFLICT for some that do not go together
 */
export function chosenOptimizer(config: OptimizerConfig, where = ""): ChosenOptimizer {
  return chooseOptimizer(config, readArguments(config, where));
}

/** Keys of an optimizer that is not the chosen one have no effect, and are told of. */
export function checkOptimizerKeys(
  config: OptimizerConfig,
  given: ReadonlyMap<ConfigKey, SourcedValue>,
  warnings: string[],
): void {
  chosenOptimizer(config, given.get("optim_args")?.where);
  const optim = given.get("optim");
  if (optim !== undefined && config.optim.startsWith("paged_")) {
    const plain = config.optim.replace("paged_", "");
    warnings.push(`${optim.where}: ${config.optim} is ${plain} here: states are not paged`);
  }
  for (const key of othersKeys(config)) {
    const sourced = given.get(key);
    if (sourced === undefined || same(sourced.value, defaultOf(key))) continue;
    warnings.push(`${sourced.where}: ${key} has no effect: optim is ${config.optim}`);
  }
}

/**
 * What tells one optimizer's runs from those of another, by key: names that mean the same are one, and what
 * the chosen one does not read is null.
 */
export function decisiveOptimizerSettings(
  config: OptimizerConfig,
): Readonly<Record<string, unknown>> {
  const { name } = optimizerOf(config.optim);
  const args = readArguments(config, "");
  return {
    optim: name,
    optim_args: Object.keys(args).length === 0 ? null : args,
    ...Object.fromEntries(othersKeys(config).map((key) => [key, null])),
  };
}

/** Keys that other optimizers than the chosen one declare. */
function othersKeys({ optim }: OptimizerConfig): readonly (keyof typeof optimizerFields)[] {
  const { fields } = optimizerOf(optim);
  const all = Object.keys(optimizerFields) as (keyof typeof optimizerFields)[];
  return all.filter((key) => !(key in fields));
}

/**
 * `momentum=0.9,nesterov=true`, as transformers reads it, or a mapping, as axolotl has it, in the types that the
 * optimizer declares.
 */
function readArguments(config: OptimizerConfig, where: string): Readonly<Record<string, unknown>> {
  const { optim, optim_args: asked } = config;
  const { args: shape } = optimizerOf(optim);
  const given: Record<string, unknown> = {};
  for (const [name, value] of argumentsIn(asked)) {
    const isWrong = !Object.hasOwn(shape, name) || Object.hasOwn(given, name);
    if (isWrong) throw invalidArguments(optim, shape, asked, where);
    given[name] = typeof value === "string" ? readValue(value) : value;
  }
  const parsed = z.object(shape).safeParse(given);
  if (!parsed.success) throw invalidArguments(optim, shape, asked, where);
  return parsed.data;
}

/** By name, in order; a part without a name and a value has none. */
function argumentsIn(
  asked: OptimizerConfig["optim_args"],
): readonly (readonly [string, unknown])[] {
  if (asked === null) return [];
  if (typeof asked !== "string") return Object.entries(asked);
  const parts = asked.replaceAll(" ", "").split(",");
  return parts.map((part) => {
    const [, name = "", value = ""] = /^([^=]+)=([^=]+)$/.exec(part) ?? [];
    return [name, value] as const;
  });
}

/** True and False as Python writes them too. */
function readValue(text: string): unknown {
  if (/^(true|false)$/i.test(text)) return text.toLowerCase() === "true";
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : text;
}

function invalidArguments(
  optim: string,
  shape: z.ZodRawShape,
  asked: OptimizerConfig["optim_args"],
  where: string,
): LockstepError<"E_CONFIG_INVALID"> {
  const each = Object.entries(shape).map(
    ([name, schema]) => `${name}=VALUE (${describeType(schema as z.ZodType)})`,
  );
  const expected =
    each.length === 0
      ? `null, since ${optim} takes none`
      : `${each.join(", ")}, with commas between them, each at most once`;
  return new LockstepError("E_CONFIG_INVALID", {
    ...{ key: "optim_args", expected, got: JSON.stringify(asked), where },
  });
}
