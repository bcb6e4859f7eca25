import { LockstepError } from "#lib/core/errors/index";
import { counted } from "#lib/core/format";
import type { LoraConfig } from "./lora-config.js";
import { moduleError, moduleKeys } from "./module-names.js";
import { matchesEnd, partProblem, patternProblem } from "./patterns.js";
import {
  adaptedModules,
  type BaseModel,
  isAllLinear,
  layerNumberOf,
  layersOf,
  linearModules,
} from "./target-modules.js";

/** The configuration's keys, for messages. */
const patternKeys = {
  rank_pattern: "lora_rank_pattern",
  alpha_pattern: "lora_alpha_pattern",
} as const;
const layersKey = "lora_layers_to_transform";
const layersPatternKey = "lora_layers_pattern";

/**
 * Checks what of a configuration is a regular expression, and which of its keys go together.
 *
 * @throws E_ADAPTER_MODULE for what is no regular expression, or a dangerous one; E_CONFIG_CONFLICT
 */
export function checkPatterns(config: LoraConfig): void {
  const { target_modules: targets, exclude_modules: excluded, layers_pattern } = config;
  checkPattern(moduleKeys.target, targets);
  checkPattern(moduleKeys.excluded, excluded);
  for (const each of typeof layers_pattern === "string" ? [layers_pattern] : (layers_pattern ?? []))
    checkPattern(layersPatternKey, each, partProblem);
  for (const [field, key] of Object.entries(patternKeys)) {
    for (const pattern of Object.keys(config[field as keyof typeof patternKeys])) {
      checkPattern(key, pattern);
    }
  }
  const conflict = (keys: string, reason: string): never => {
    throw new LockstepError("E_CONFIG_CONFLICT", { keys, reason });
  };
  if (layers_pattern !== null && config.layers_to_transform === null) {
    conflict(layersPatternKey, `it says where the layers of ${layersKey} are, which is not set`);
  }
  if (typeof targets === "string" && !isAllLinear(targets) && config.layers_to_transform !== null) {
    const keys = `${moduleKeys.target} and ${layersKey}`;
    conflict(keys, "a regular expression is for whole paths, and names the layers itself");
  }
}

function checkPattern(
  key: string,
  value: LoraConfig["target_modules"],
  problemOf = patternProblem,
): void {
  const problem = typeof value === "string" ? problemOf(value) : undefined;
  if (problem !== undefined) throw moduleError(key, String(value), problem);
}

/**
 * Checks that the model has the layers.
 *
 * @param config as it was written
 * @throws E_ADAPTER_MODULE
 */
export function checkLayers(config: LoraConfig, model: BaseModel): void {
  const numbers = linearModules(model).flatMap(({ path }) => layerNumberOf(config, path) ?? []);
  const found = [...new Set(numbers)].sort((a, b) => a - b);
  for (const layer of layersOf(config)) {
    if (found.includes(layer)) continue;
    const there =
      found.length === 0
        ? `${layersPatternKey} ${JSON.stringify(config.layers_pattern)} finds no layers at all`
        : `there are ${found[0]} to ${found.at(-1)}`;
    throw moduleError(layersKey, String(layer), `a layer that the model does not have (${there})`);
  }
}

/**
 * Checks that layers and patterns of ranks and alphas are of modules that get an adapter: peft lets those
 * without effect be.
 *
 * @param config complete (see completeLoraConfig)
 * @throws E_ADAPTER_MODULE, E_ADAPTER_TARGET
 */
export function checkPatternsMatch(config: LoraConfig, model: BaseModel): void {
  const paths = adaptedModules(config, model).map(({ path }) => path);
  for (const [field, key] of Object.entries(patternKeys)) {
    for (const pattern of Object.keys(config[field as keyof typeof patternKeys])) {
      if (paths.some((path) => matchesEnd(pattern, path))) continue;
      throw moduleError(
        key,
        pattern,
        `which fits none of the ${counted(paths.length, "module")} with an adapter`,
      );
    }
  }
  const found = new Set(paths.map((path) => layerNumberOf(config, path)));
  const empty = layersOf(config).find((layer) => !found.has(layer));
  if (empty !== undefined) {
    throw moduleError(layersKey, String(empty), "a layer in which there is none of the targets");
  }
}
