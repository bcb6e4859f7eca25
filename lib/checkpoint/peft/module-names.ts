import { nearName } from "#lib/core/edit-distance";
import { LockstepError } from "#lib/core/errors/index";
import type { LoraConfig } from "./lora-config.js";
import {
  type BaseModel,
  isAllLinear,
  isEmbeddingTable,
  isSavedWhole,
  isTarget,
  linearModules,
  matchesModule,
  pathsAbove,
  savedModulePaths,
} from "./target-modules.js";

/** The configuration's keys, for messages. */
export const moduleKeys = {
  target: "lora_target_modules",
  excluded: "lora_exclude_modules",
  saved: "lora_modules_to_save",
} as const;

/**
 * Checks what a person wrote against the model. peft ignores names that nothing has, lists them in
 * adapter_config.json all the same, and fails at modules that no adapter is made for.
 *
 * @param config as it was written, before what peft fills in; its pattern has been checked
 * @throws E_ADAPTER_MODULE, E_ADAPTER_TARGET
 */
export function checkModuleNames(config: LoraConfig, model: BaseModel): void {
  const { target_modules: targets, exclude_modules: excluded, modules_to_save: saved } = config;
  for (const name of saved ?? []) checkSavedName(name, model);
  checkExcluded(excluded, model);
  if (typeof targets === "string") {
    if (!isAllLinear(targets)) checkPattern(targets, config, model);
  } else {
    for (const name of targets ?? []) checkTargetName(name, config, model);
  }
}

/** Every module that has weights, and those that hold them. */
function modulePaths({ weights }: BaseModel): string[] {
  return [...new Set(weights.flatMap(({ name }) => pathsAbove(name)))];
}

function checkSavedName(name: string, model: BaseModel): void {
  if (savedModulePaths([name], model).length > 0) return;
  throw unknownModule(moduleKeys.saved, name, model);
}

function checkExcluded(excluded: LoraConfig["exclude_modules"], model: BaseModel): void {
  const linear = linearModules(model).map(({ path }) => path);
  for (const name of typeof excluded === "string" ? [excluded] : (excluded ?? [])) {
    const selection = typeof excluded === "string" ? excluded : [name];
    if (linear.some((path) => matchesModule(selection, path))) continue;
    if (modulePaths(model).some((path) => matchesModule(selection, path))) {
      throw moduleError(
        moduleKeys.excluded,
        name,
        "which is no linear module, and gets no adapter",
      );
    }
    throw unknownModule(moduleKeys.excluded, name, model);
  }
}

function checkTargetName(name: string, config: LoraConfig, model: BaseModel): void {
  const found = modulePaths(model).filter((path) => matchesModule([name], path));
  if (found.length === 0) throw unknownModule(moduleKeys.target, name, model);
  refuseOthers(name, found, config, model);
}

/** Refuses targets to which no adapter is added; what is trained whole is none. */
function refuseOthers(
  name: string,
  found: readonly string[],
  config: LoraConfig,
  model: BaseModel,
): void {
  const linear = new Set(linearModules(model).map(({ path }) => path));
  const other = found.find(
    (path) =>
      (!linear.has(path) || path === outputHead) &&
      !isSavedWhole(config.modules_to_save, `${path}.weight`),
  );
  if (other !== undefined) throw notAdapted(name, other, model);
}

/** peft takes the whole path of every module, and fails at one that is not linear. */
function checkPattern(pattern: string, config: LoraConfig, model: BaseModel): void {
  const found = modulePaths(model).filter((path) => matchesModule(pattern, path));
  refuseOthers(pattern, found, config, model);
}

/**
 * Checks that a module which is trained whole takes no adapter, and lies in no other that is trained whole.
 *
 * @param config complete (see completeLoraConfig)
 * @throws E_ADAPTER_MODULE
 */
export function checkNoneTwice(config: LoraConfig, model: BaseModel): void {
  const { modules_to_save: names } = config;
  if (names === null) return;
  const saved = savedModulePaths(names, model);
  const isWithin = (path: string): string | undefined =>
    saved.find((whole) => path.startsWith(`${whole}.`));
  for (const path of saved) {
    const whole = isWithin(path);
    if (whole === undefined) continue;
    throw moduleError(moduleKeys.saved, path, `which lies in ${whole}, which is named too`);
  }
  for (const { path } of linearModules(model)) {
    if (!isTarget(config, path) || (!saved.includes(path) && isWithin(path) === undefined))
      continue;
    const problem = `which ends like one of ${moduleKeys.saved}, ${names.join(", ")}; write the whole last part of a name`;
    throw moduleError(moduleKeys.target, path, problem);
  }
}

/** The logits' matrix: the loss takes it as it is. */
const outputHead = "lm_head";

function notAdapted(name: string, path: string, model: BaseModel): LockstepError {
  const within = linearModules(model)
    .map((module) => module.path)
    .filter((each) => each.startsWith(`${path}.`))
    .map(lastPart);
  const isTable = isEmbeddingTable(model.facts, `${path}.weight`);
  const what =
    isTable || path === outputHead
      ? `${isTable ? "an embedding table" : "the output head"}, to which no adapter is added here; ${moduleKeys.saved} trains it whole`
      : within.length === 0
        ? "no linear module"
        : `no linear module; within it are ${[...new Set(within)].join(", ")}`;
  const found = path === name ? "which is" : `and that takes in ${path}, which is`;
  return moduleError(moduleKeys.target, name, `${found} ${what}`);
}

function unknownModule(key: string, name: string, model: BaseModel): LockstepError {
  const parts = modulePaths(model).map(lastPart);
  const paths = name.includes(".") ? modulePaths(model) : [...new Set(parts)];
  const near = nearName(name, paths);
  const hint = near === undefined ? `there are ${some(model)}` : `did you mean ${near}?`;
  return moduleError(
    key,
    name,
    `which this ${model.facts.modelType} model does not have (${hint})`,
  );
}

/** The last parts of names of modules with weights, each once. */
function some({ weights }: BaseModel): string {
  const owners = weights.map(({ name }) => lastPart(pathsAbove(name).at(-1) ?? name));
  return [...new Set(owners)].slice(0, 30).join(", ");
}

const lastPart = (path: string): string => path.slice(path.lastIndexOf(".") + 1);

export const moduleError = (key: string, module: string, problem: string): LockstepError =>
  new LockstepError("E_ADAPTER_MODULE", { key, module: module.slice(0, 200), problem });
