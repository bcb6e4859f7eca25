import { createHash } from "node:crypto";
import { realpathSync } from "node:fs";
import { relative, resolve } from "node:path";
import { addedKindOf } from "#lib/checkpoint/adapter-kind";
import {
  type AdapterDirectory,
  classifierHeads,
  defaultLoraConfig,
  isAdapterDirectory,
  type LoraConfig,
} from "#lib/checkpoint/peft/index";
import {
  hubTokenOf,
  isConfigKey,
  isGiven,
  placeOf,
  type ResolvedConfig,
  type SettledConfig,
  withChanges,
} from "#lib/config/index";
import { LockstepError } from "#lib/core/errors/index";
import { parametersKindOf, type StartingModel } from "#lib/parameters/index";
import { findModelDirectory, type ModelSearch } from "./model-directory.js";

/**
 * Finds the adapter that a run goes on training, if it names one.
 *
 * @throws E_CONFIG_INVALID for what is no adapter, E_CONFIG_UNSUPPORTED for one of another kind, E_CONFIG_CONFLICT for one in the run's own output directory,
 *   E_MODEL_NOT_FOUND
 */
export async function findStartingAdapter(
  config: ResolvedConfig,
  search: Pick<ModelSearch, "onDetail">,
): Promise<string | undefined> {
  const { adapter_name_or_path: name } = config;
  if (name === null || !("adapter_name_or_path" in parametersKindOf(config).fields))
    return undefined;
  const directory = await findModelDirectory(name, { ...search, token: hubTokenOf(config) });
  if (!isAdapterDirectory(directory)) {
    throw new LockstepError("E_CONFIG_INVALID", {
      ...{ key: "adapter_name_or_path", where: placeOf(config, "adapter_name_or_path") },
      expected:
        "an adapter: a directory with adapter_config.json, or a repository of the hub with one",
      got: JSON.stringify(name),
    });
  }
  const added = await addedKindOf(directory);
  if (added !== undefined) {
    throw new LockstepError("E_CONFIG_UNSUPPORTED", {
      ...{ key: "adapter_name_or_path", value: JSON.stringify(name) },
      where: placeOf(config, "adapter_name_or_path"),
      reason: `it is ${added}, and LoRA's and DoRA's adapters alone are trained further`,
    });
  }
  if (!relative(real(config.output_dir), real(directory)).startsWith("..")) {
    throw new LockstepError("E_CONFIG_CONFLICT", {
      keys: "adapter_name_or_path and output_dir",
      reason: `${directory} is where the run saves, and a run that is resumed needs the adapter that it began with; resume_from_checkpoint goes on with a checkpoint`,
    });
  }
  return directory;
}

/** An adapter's settings under our keys. */
function settingsOf(own: LoraConfig): Partial<SettledConfig> {
  const listOf = <T>(value: T | readonly T[] | null): readonly T[] | null =>
    value === null || Array.isArray(value) ? (value as readonly T[] | null) : [value as T];
  const unlessEmpty = <T extends object>(value: T): T | null =>
    Object.keys(value).length === 0 ? null : value;
  const { init_lora_weights: form } = own;
  const saved = (own.modules_to_save ?? []).filter((name) => !classifierHeads.includes(name));
  return {
    lora_r: own.r,
    lora_alpha: own.lora_alpha,
    lora_dropout: own.lora_dropout,
    lora_target_modules: own.target_modules,
    lora_exclude_modules: own.exclude_modules,
    lora_layers_to_transform: listOf(own.layers_to_transform),
    lora_layers_pattern: listOf(own.layers_pattern),
    lora_rank_pattern: unlessEmpty(own.rank_pattern),
    lora_alpha_pattern: unlessEmpty(own.alpha_pattern),
    lora_modules_to_save: unlessEmpty(saved),
    init_lora_weights: form === "gaussian" ? form : true,
    use_rslora: own.use_rslora,
    use_dora: own.use_dora,
    ensure_weight_tying: own.ensure_weight_tying,
  };
}

/** Keys whose values are those of the adapter that a run goes on training, as nobody gave them. */
export function settledByAdapter(config: ResolvedConfig): readonly string[] {
  if (config.adapter_name_or_path === null) return [];
  return Object.keys(settingsOf(defaultLoraConfig)).filter(
    (key) => isConfigKey(key) && !isGiven(config, key),
  );
}

/** A configuration with an adapter's settings, so that what a run is and what it writes of itself names them. */
export function withAdapterSettings(
  config: SettledConfig,
  adapter: AdapterDirectory | undefined,
): SettledConfig {
  if (adapter === undefined) return config;
  const open = settledByAdapter(config);
  const settings = Object.entries(settingsOf(adapter.config)).filter(([key]) => open.includes(key));
  return withChanges(config, Object.fromEntries(settings)) as SettledConfig;
}

/** SHA-256 of all that a run starts from, by content: a model's weights, and of an adapter them and its own. */
export async function startDigest({ digest, adapter }: StartingModel): Promise<string> {
  const base = await digest();
  if (adapter === undefined) return base;
  return createHash("sha256")
    .update(base)
    .update(await adapter.digest())
    .digest("hex");
}

function real(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return resolve(path);
  }
}
