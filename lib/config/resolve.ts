import { z } from "zod";
import { computeDtypes, type HalfTypes, precisionOf, type WireDtype } from "#lib/core/dtype";
import { LockstepError } from "#lib/core/errors/index";
import { parametersKindOf } from "#lib/parameters/index";
import { checkSchedule } from "./check-schedule.js";
import { checkPrecision, checkTogether } from "./check-together.js";
import { type ColumnMapping, columnRoles, readColumns } from "./columns.js";
import { type ConfigCommand, refuseUnread, unreadKeys } from "./command-keys.js";
import { tellIdle } from "./idle-keys.js";
import { type DatasetEntry, readDatasetList } from "./dataset-entries.js";
import {
  type ConfigKey,
  configSchema,
  defaultOf,
  fields,
  isConfigKey,
  type ParsedConfig,
  secretKeys,
} from "./fields.js";
import { expandPaths } from "./expand-paths.js";
import type { SourcedValue } from "./flags.js";
import { foreignKeys } from "./foreign-keys.js";
import { keepGivenKeys } from "./given-keys.js";
import { refuseHalfCharacters } from "./half-characters.js";
import { invalidValues } from "./invalid-values.js";
import { checkOptimizerKeys } from "./optimizer.js";
import { keepHubToken } from "./secrets.js";
import {
  checkChoice,
  choiceKeys,
  ownWay,
  refuseMissingWay,
  settleChoice,
} from "./parameters-choice.js";
import { placed } from "./placed-error.js";
import { readSwitch } from "./switch-words.js";
import {
  checkReplay,
  checkSampling,
  replayShare,
  resolveTasks,
  type TaskSettings,
} from "./tasks.js";
import { toolDefaults } from "./tool.js";
import { translate } from "./translate.js";
import { withChanges } from "./with-changes.js";

/** The whole configuration of a job: every key has its value. Property names are the keys of the file. */
export type ResolvedConfig = Readonly<
  Omit<
    ParsedConfig,
    | "global_batch_size"
    | "gradient_groups"
    | "threads_per_worker"
    | "wire_dtype"
    | "data_seed"
    | "eval_steps"
    | "dataset"
    | "eval_dataset"
    | "tasks"
    | "general_dataset"
    | "general_eval_dataset"
    | "columns"
  > & {
    /** Names of data sets, files, or entries that say what their rows look like. */
    readonly dataset: readonly (string | DatasetEntry)[];
    readonly eval_dataset: readonly (string | DatasetEntry)[] | null;
    readonly general_dataset: readonly (string | DatasetEntry)[] | null;
    readonly general_eval_dataset: readonly (string | DatasetEntry)[] | null;
    /** The data's names of columns, by ours. */
    readonly columns: ColumnMapping | null;
    /** By name, in their order; null: there is one, and it has no name. */
    readonly tasks: Readonly<Record<string, TaskSettings>> | null;
    readonly global_batch_size: number;
    readonly gradient_groups: number;
    readonly threads_per_worker: number;
    /** null: follows bf16 and fp16, of which one is "auto". */
    readonly wire_dtype: WireDtype | null;
    readonly data_seed: number;
    readonly eval_steps: number;
  }
>;

export interface Resolution {
  readonly config: ResolvedConfig;
  /** One line each: renamed keys, ignored keys, derived values that override given ones. */
  readonly warnings: readonly string[];
}

interface Machine {
  readonly cpuCount: number;
}

/**
 * Defaults < file < flags; old and foreign names become ours first, and `~` in paths the home directory.
 *
 * @param command refuses the keys that it does not act on
 * @throws E_CONFIG_UNKNOWN_KEY, E_CONFIG_INVALID, E_CONFIG_UNSUPPORTED, E_CONFIG_CONFLICT,
 *   E_CONFIG_MISSING_KEY, E_PATH_HOME
 */
export function resolveConfig(
  file: ReadonlyMap<string, SourcedValue>,
  flags: ReadonlyMap<string, SourcedValue>,
  machine: Machine,
  command?: ConfigCommand,
): Resolution {
  const warnings: string[] = [];
  const named = flags.get("finetuning_type") ?? file.get("finetuning_type");
  if (named !== undefined) refuseMissingWay(named);
  const method = ownWay(named?.value);
  // Renaming happens per source, so that a flag under an old name still wins over the file.
  const ofFlags = translate(flags, method, warnings);
  const flagsChoose = choiceKeys.some((key) => (ofFlags.get(key)?.value ?? null) !== null);
  const notOverridden = new Map(
    [...file].filter(
      ([key]) =>
        !flags.has(key) &&
        !ofFlags.has(ourName(key)) &&
        !(flagsChoose && choiceKeys.includes(ourName(key))),
    ),
  );
  const given = new Map([...translate(notOverridden, method, warnings), ...ofFlags]);
  settleChoice(given, warnings);
  for (const [key, sourced] of toolDefaults(file, flags, given, warnings)) given.set(key, sourced);
  for (const key of ["model_name_or_path", "dataset"] as const) {
    if ((given.get(key)?.value ?? null) === null) {
      throw new LockstepError("E_CONFIG_MISSING_KEY", {
        key,
        meaning: fields[key].description ?? key,
      });
    }
  }
  refuseHalfCharacters(given);
  const values = Object.fromEntries(
    [...given]
      // An empty line of a file of another tool: no switch is on.
      .filter(([key, { value }]) => value !== null || !isSwitchKey(key) || isNullable(key))
      .map(([key, { value }]) => [key, isSwitchKey(key) ? readSwitch(value) : value]),
  );
  const parsed = configSchema.safeParse(values);
  if (!parsed.success) throw invalidValues(parsed.error, given);
  checkChoice(parsed.data, given, warnings);
  try {
    checkTogether(parsed.data, command);
    checkOptimizerKeys(parsed.data, given, warnings);
    checkSchedule(parsed.data, given, warnings);
  } catch (error) {
    throw placed(error, (key) => given.get(key as ConfigKey)?.where ?? "");
  }
  checkHubKeys(parsed.data, given, warnings);
  if (command !== undefined) refuseUnread(command, parsed.data, given, warnings);
  const unread = command === undefined ? {} : unreadKeys[command];
  tellIdle(parsed.data, given, new Set(Object.keys(unread)), warnings);
  const { hub_token: token, ...shown } = parsed.data;
  const paths = expandPaths(shown, given);
  const config = derive({ ...shown, ...paths, hub_token: null }, given, machine, warnings);
  keepHubToken(config, token);
  keepGivenKeys(config, given);
  return { config, warnings };
}

/** Options of a push where nothing is pushed have no effect, and are told of. */
function checkHubKeys(
  { push_to_hub: pushes }: ParsedConfig,
  given: ReadonlyMap<ConfigKey, SourcedValue>,
  warnings: string[],
): void {
  if (pushes) return;
  for (const key of ["hub_model_id", "hub_private_repo"] as const) {
    const sourced = given.get(key);
    if ((sourced?.value ?? null) === null) continue;
    warnings.push(`${sourced?.where}: ${key} has no effect: push_to_hub: true is what pushes`);
  }
}

/** A configuration whose `bf16` and `fp16` are not "auto". */
export type SettledConfig = ResolvedConfig & HalfTypes & { readonly wire_dtype: WireDtype };

const wireDtypeOf = (
  config: Pick<ParsedConfig, "wire_dtype" | "finetuning_type" | "use_peft">,
  types: HalfTypes,
): WireDtype =>
  config.wire_dtype ?? parametersKindOf(config).wireDtype ?? computeDtypes[precisionOf(types)];

export const isSettled = (config: ResolvedConfig): config is SettledConfig =>
  config.bf16 !== "auto" && config.fp16 !== "auto" && config.wire_dtype !== null;

/**
 * Puts what a device has in the place of `bf16: auto`, and of `fp16: auto` where bf16 is not chosen; a
 * configuration that does not ask is as it was.
 *
 * @throws E_CONFIG_CONFLICT where the answer does not go with the other keys
 */
export function settleConfig(config: ResolvedConfig, device: HalfTypes): SettledConfig {
  if (isSettled(config)) return config;
  const bf16 = config.bf16 === "auto" ? device.bf16 : config.bf16;
  const fp16 = config.fp16 === "auto" ? device.fp16 && !bf16 : config.fp16;
  const types = { bf16, fp16 };
  const settled = withChanges(config, { ...types, wire_dtype: wireDtypeOf(config, types) });
  checkPrecision(settled);
  return settled;
}

/** What of the two is left to the device: one that is true leaves nothing. */
function halfTypes({ bf16, fp16 }: ParsedConfig): Pick<ParsedConfig, "bf16" | "fp16"> {
  return {
    bf16: bf16 === "auto" && fp16 === true ? false : bf16,
    fp16: fp16 === "auto" && bf16 === true ? false : fp16,
  };
}

/** The key of ours that a name stands for, if it does. */
function ourName(key: string): ConfigKey {
  const rule = Object.hasOwn(foreignKeys, key) ? foreignKeys[key] : undefined;
  return rule?.kind === "renamed" ? rule.to : (key as ConfigKey);
}

/** Foreign names of switches; what `torch_dtype` is read as is a switch, and itself takes a word. */
const renamedSwitches = [
  "no_cuda",
  "auto_resume_from_checkpoints",
  "group_by_length",
  "disable_shuffling",
  "neat_packing",
  "sample_packing",
  "activation_checkpointing",
  "lora_target_linear",
  "peft_use_dora",
  "peft_use_rslora",
  "curriculum_sampling",
  "do_eval",
  "adafactor",
];

/** True for keys whose flag takes no value. */
export function isSwitchKey(key: string): boolean {
  if (key === "bf16" || key === "fp16") return true;
  if (isConfigKey(key)) return innermost(fields[key]) instanceof z.ZodBoolean;
  const rule = Object.hasOwn(foreignKeys, key) ? foreignKeys[key] : undefined;
  if (rule === undefined) return false;
  if (rule.kind === "renamed") return renamedSwitches.includes(key);
  if (rule.kind === "method" || rule.kind === "joint") return false;
  return rule.kind === "ignored"
    ? typeof rule.default === "boolean"
    : rule.allowed.some((value) => typeof value === "boolean");
}

export const isKnownKey = (key: string): boolean =>
  isConfigKey(key) || Object.hasOwn(foreignKeys, key);

const isNullable = (key: ConfigKey): boolean => fields[key].safeParse(null).success;

/** True for keys whose value is text whatever it looks like: `--output-dir 1e3`. */
export function isTextKey(key: string): boolean {
  if (isConfigKey(key)) return innermost(fields[key]) instanceof z.ZodString;
  // A secret that is no YAML would stand in the message about it.
  return isSecretKey(key);
}

/** True for keys whose value is shown nowhere, under each tool's name, and those of hubs that are not used. */
export function isSecretKey(key: string): boolean {
  if (key.endsWith("hub_token")) return true;
  const rule = Object.hasOwn(foreignKeys, key) ? foreignKeys[key] : undefined;
  return secretKeys.some((secret) => secret === (rule?.kind === "renamed" ? rule.to : key));
}

function innermost(schema: z.ZodType): z.ZodType {
  let current: z.ZodType = schema;
  while (current instanceof z.ZodDefault || current instanceof z.ZodNullable) {
    current = current.unwrap() as z.ZodType;
  }
  return current;
}

function derive(
  parsed: ParsedConfig,
  given: ReadonlyMap<ConfigKey, SourcedValue>,
  machine: Machine,
  warnings: string[],
): ResolvedConfig {
  const microBatch = parsed.per_device_train_batch_size;
  const asPlanned = microBatch * parsed.gradient_accumulation_steps * parsed.workers;
  const globalBatch = parsed.global_batch_size ?? asPlanned;
  if (globalBatch % microBatch !== 0) {
    throw new LockstepError("E_CONFIG_CONFLICT", {
      keys: "global_batch_size and per_device_train_batch_size",
      reason: `${globalBatch} rows are not a whole number of micro-batches of ${microBatch}`,
    });
  }
  const numMicroBatches = globalBatch / microBatch;
  const accumulation = Math.ceil(numMicroBatches / parsed.workers);
  if (globalBatch !== asPlanned && given.has("gradient_accumulation_steps")) {
    warnings.push(
      `global_batch_size ${globalBatch} decides: gradient_accumulation_steps is ${accumulation} for ` +
        `${parsed.workers} worker(s), not ${parsed.gradient_accumulation_steps}`,
    );
  }
  const groups = parsed.gradient_groups ?? Math.min(parsed.workers, numMicroBatches);
  if (groups > numMicroBatches) {
    throw new LockstepError("E_CONFIG_CONFLICT", {
      keys: "gradient_groups and global_batch_size",
      reason: `${groups} groups cannot share the ${numMicroBatches} micro-batches of a step`,
    });
  }
  const { validation_split: split } = parsed;
  const isForeign = given.get("validation_split")?.where.includes(", given as ") === true;
  const saysSplit = isForeign || split !== defaultOf("validation_split");
  const splitsGeneral = parsed.general_dataset !== null && parsed.general_eval_dataset === null;
  if (parsed.eval_dataset !== null && split !== 0 && saysSplit && !splitsGeneral) {
    warnings.push("validation_split has no effect: eval_dataset validates");
  }
  const list = (value: string | string[]): readonly string[] =>
    Object.freeze(typeof value === "string" ? splitNames(value) : [...value]);
  const datasets = (
    key: "dataset" | "eval_dataset" | "general_dataset" | "general_eval_dataset",
  ): readonly (string | DatasetEntry)[] | null => {
    const value = parsed[key];
    if (value === null) return null;
    if (typeof value === "string") return list(value);
    const { where = "" } = given.get(key) ?? {};
    return Object.freeze(readDatasetList(value, { key, where, warnings }));
  };
  const lists = { dataset: datasets("dataset") ?? [], eval_dataset: datasets("eval_dataset") };
  const general = {
    general_dataset: datasets("general_dataset"),
    general_eval_dataset: datasets("general_eval_dataset"),
  };
  const tasks = resolveTasks(parsed, { ...lists, ...general }, given);
  checkReplay(parsed, tasks !== null);
  checkSampling(parsed, tasks !== null || replayShare(parsed) !== undefined);
  const types = halfTypes(parsed);
  const { bf16, fp16 } = types;
  const isOpen = bf16 === "auto" || fp16 === "auto";
  const wireDtype = isOpen ? parsed.wire_dtype : wireDtypeOf(parsed, { bf16, fp16 });
  checkPrecision({ ...types, wire_dtype: wireDtype });
  return Object.freeze({
    ...parsed,
    ...types,
    ...lists,
    tasks,
    columns: columnsOf(parsed, given),
    ...general,
    lr_scheduler_kwargs:
      parsed.lr_scheduler_kwargs === null ? null : Object.freeze(parsed.lr_scheduler_kwargs),
    dropout: Object.freeze(parsed.dropout),
    gradient_accumulation_steps: accumulation,
    global_batch_size: globalBatch,
    gradient_groups: groups,
    threads_per_worker:
      parsed.threads_per_worker ?? Math.max(1, Math.floor(machine.cpuCount / parsed.workers)),
    wire_dtype: wireDtype,
    data_seed: parsed.data_seed ?? parsed.seed,
    eval_steps: parsed.eval_steps ?? parsed.logging_steps,
  });
}

/** @throws E_CONFIG_UNKNOWN_KEY, E_CONFIG_INVALID, E_CONFIG_CONFLICT */
function columnsOf(
  { columns, dataset_text_field: field }: ParsedConfig,
  given: ReadonlyMap<ConfigKey, SourcedValue>,
): ColumnMapping | null {
  if (columns === null) return null;
  const { where = "" } = given.get("columns") ?? {};
  const mapping = readColumns(columns, { key: "columns", where });
  const text = Object.keys(mapping).find((name) => columnRoles[name] === "text");
  if (field !== null && text !== undefined && mapping[text] !== field) {
    const keys = `dataset_text_field and columns.${text}`;
    throw new LockstepError("E_CONFIG_CONFLICT", { keys, reason: "both name the column of texts" });
  }
  return Object.keys(mapping).length === 0 ? null : mapping;
}

/** LLaMA-Factory's `dataset: identity,alpaca_en`: names only, so that a path may hold a comma. */
function splitNames(value: string): string[] {
  const names = value.split(",").map((name) => name.trim());
  const isName = (name: string): boolean =>
    /^[\w.-]+$/.test(name) && !/\.(jsonl?|csv|tsv|txt|parquet|gz)$/.test(name);
  return names.length > 1 && names.every(isName) ? names : [value];
}
