import {
  type AdapterDirectory,
  type BaseModel,
  adaptedModules,
  type LoraConfig,
  loraPartOf,
  rankOf,
  scaleOf,
  tiedHeadPath,
} from "#lib/checkpoint/peft/index";
import { LockstepError } from "#lib/core/errors/index";
import type { ParameterLayout } from "#lib/core/parameter-layout";
import type { LoraSettings } from "./lora-keys.js";

type LoraKey = keyof LoraSettings;

/** Keys that have to be the adapter's where they are given, and the fields of its configuration. */
const sameValues = {
  lora_r: "r",
  lora_alpha: "lora_alpha",
  use_rslora: "use_rslora",
  use_dora: "use_dora",
  ensure_weight_tying: "ensure_weight_tying",
} as const satisfies Partial<Record<LoraKey, keyof LoraConfig>>;

/** Keys that choose what is trained, and those that choose ranks and scales: their effect is compared. */
const chosenBy = {
  lora_target_modules: "target_modules",
  lora_exclude_modules: "exclude_modules",
  lora_layers_to_transform: "layers_to_transform",
  lora_layers_pattern: "layers_pattern",
  lora_modules_to_save: "modules_to_save",
} as const satisfies Partial<Record<LoraKey, keyof LoraConfig>>;
const scaledBy = {
  lora_rank_pattern: "rank_pattern",
  lora_alpha_pattern: "alpha_pattern",
} as const satisfies Partial<Record<LoraKey, keyof LoraConfig>>;

const keysOf = <Keys extends object>(keys: Keys): (keyof Keys & LoraKey)[] =>
  Object.keys(keys) as (keyof Keys & LoraKey)[];

/** A configuration that an adapter's training goes on with. */
interface ContinuedAdapter {
  readonly adapter: AdapterDirectory;
  readonly settings: LoraSettings;
  /** Whether somebody gave a key its value; others follow the adapter. */
  readonly isGiven: (key: LoraKey) => boolean;
}

/**
 * The settings of an adapter, with those that were given beside it.
 *
 * @param asked what the settings alone would make
 * @param newModules of which nobody but the adapter can have the weights
 * @throws E_CONFIG_CONFLICT for a value that is not the adapter's; E_ADAPTER_UNSUPPORTED for trained biases
 */
export function continuedConfig(
  asked: LoraConfig,
  { adapter, settings, isGiven }: ContinuedAdapter,
  newModules: readonly string[],
): LoraConfig {
  const { config, directory } = adapter;
  if (config.bias !== "none") {
    const what = `bias ${config.bias}: biases that are trained further`;
    throw new LockstepError("E_ADAPTER_UNSUPPORTED", { file: directory, what });
  }
  if ((config.task_type ?? asked.task_type) !== asked.task_type) {
    const reason = `the adapter is for task_type ${config.task_type}, and the data make one for ${asked.task_type}`;
    throw conflict(["dataset"], reason);
  }
  for (const key of keysOf(sameValues)) {
    const was = config[sameValues[key]];
    if (isGiven(key) && settings[key] !== was) throw otherThan(key, settings[key], was);
  }
  const { init_lora_weights: form } = settings;
  if (isGiven("init_lora_weights") && form !== true && form !== config.init_lora_weights) {
    throw conflict(["init_lora_weights"], "the matrices begin with the adapter's values");
  }
  const lora_dropout = isGiven("lora_dropout") ? settings.lora_dropout : config.lora_dropout;
  if (lora_dropout >= 1) {
    const reason = `the adapter has a rate of ${lora_dropout}, with which nothing is learnt; give another one`;
    throw conflict(["lora_dropout"], reason);
  }
  const given = (keys: typeof chosenBy | typeof scaledBy): Partial<LoraConfig> =>
    Object.fromEntries(
      Object.entries(keys).flatMap(([key, field]) =>
        isGiven(key as LoraKey) ? [[field, asked[field]]] : [],
      ),
    );
  return {
    ...config,
    task_type: asked.task_type,
    base_model_name_or_path: asked.base_model_name_or_path,
    revision: asked.revision,
    lora_dropout,
    modules_to_save:
      (config.modules_to_save ?? []).length + newModules.length === 0
        ? null
        : [...new Set([...(config.modules_to_save ?? []), ...newModules])],
    ...given(chosenBy),
    ...given(scaledBy),
  };
}

/**
 * Checks that what a configuration chooses is what an adapter has: modules, weights that are saved whole, ranks
 * and scales.
 *
 * @param complete the configuration of continuedConfig, complete
 * @param trained what it trains of the model
 * @throws E_CONFIG_CONFLICT by the given keys that ask for something else; E_ADAPTER_TENSOR for an adapter that
 *   does not fit its own configuration, or the model
 */
export function checkContinued(
  complete: LoraConfig,
  { model, trained }: { readonly model: BaseModel; readonly trained: ParameterLayout },
  { adapter, isGiven }: ContinuedAdapter,
): void {
  adapter.checkAgainst(model);
  const isTiedHead = (name: string): boolean =>
    complete.ensure_weight_tying && name === `${tiedHeadPath}.weight`;
  const has = new Set([
    ...adapter.modules.map(({ path }) => path),
    ...adapter.savedWeights.filter((name) => !isTiedHead(name)),
  ]);
  const wanted = new Set(trained.tensors.map(({ name }) => loraPartOf(name)?.path ?? name));
  const more = [...wanted].find((name) => !has.has(name));
  const less = [...has].find((name) => !wanted.has(name));
  const keys = keysOf(chosenBy).filter(isGiven);
  if (more !== undefined || less !== undefined) {
    const problem =
      more === undefined
        ? `is in the adapter, and is not chosen by ${names(keys)}`
        : `is chosen by ${names(keys)}, and is not in the adapter`;
    throw keys.length === 0
      ? misfit(adapter, more ?? less ?? "", problem)
      : conflict(keys, `${more ?? less} ${problem}`);
  }
  for (const { path } of adaptedModules(complete, model)) {
    for (const [what, of] of [
      ["rank", rankOf],
      ["scale", scaleOf],
    ] as const) {
      const [was, is] = [of(adapter.config, path), of(complete, path)];
      if (was === is) continue;
      throw conflict(
        keysOf(scaledBy).filter(isGiven),
        `${path} has ${what} ${was} there, and would have ${is}`,
      );
    }
  }
}

/** Keys in words, or what stands for them where none was given. */
const names = (keys: readonly LoraKey[]): string =>
  keys.length === 0 ? "its adapter_config.json" : keys.join(" and ");

const conflict = (keys: readonly string[], reason: string): LockstepError =>
  new LockstepError("E_CONFIG_CONFLICT", {
    ...{ keys: ["adapter_name_or_path", ...keys].join(" and "), reason },
  });

const otherThan = (key: LoraKey, is: unknown, was: unknown): LockstepError =>
  conflict([key], `the adapter has ${JSON.stringify(was)}, not ${JSON.stringify(is)}`);

function misfit(adapter: AdapterDirectory, tensor: string, problem: string): LockstepError {
  const { directory } = adapter;
  return new LockstepError("E_ADAPTER_TENSOR", { directory, tensor, problem });
}
