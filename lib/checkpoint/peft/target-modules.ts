import { LockstepError } from "#lib/core/errors/index";
import type { LoraConfig, ModuleSelection } from "./lora-config.js";
import { matchesEnd, matchesWhole } from "./patterns.js";

/** A linear map of a model and the size of what it takes and gives. */
interface LinearModule {
  /** Path in the model, such as `model.layers.0.self_attn.q_proj`. */
  readonly path: string;
  readonly numInputs: number;
  readonly numOutputs: number;
}

/** Weights as a model names them, with their stored shapes. */
type Weights = readonly { readonly name: string; readonly shape: readonly number[] }[];

/** Heads of sequence classification, which peft trains whole. */
export const classifierHeads: readonly string[] = ["classifier", "score"];

/** What is asked of a base model's type. */
export interface AdapterFacts {
  /** `model_type` of config.json. */
  readonly modelType: string;
  /** Modules that an adapter is added to where none are named; empty: some have to be. */
  readonly adapterTargets: readonly string[];
  /** Last parts of the names of modules that are tables of embeddings. */
  readonly embeddingModules: readonly string[];
  /** Linear maps whose names begin so lie as [inputs, outputs]; undefined: all are [outputs, inputs]. */
  readonly inputMajorPrefix?: string;
  /** The weight that holds a row a token. */
  readonly tokenEmbedding?: string;
  /** Whether what a token becomes is the square root of the width times its row. */
  readonly scalesTokens?: true;
  /** Begins the names of the base model's weights: what else a model has is its head. */
  readonly basePrefix?: string;
  /** transformers' name of the type, as in `LlamaForCausalLM`. */
  readonly className?: string;
  /** Where bottleneck adapters of a layer are, with * for its number; undefined: nobody would read them. */
  readonly bottlenecks?: Readonly<Record<"attention" | "feedForward", string>>;
}

export interface BaseModel {
  readonly facts: AdapterFacts;
  readonly weights: Weights;
}

/**
 * Fills in what peft fills in for a base model when an adapter is made: the usual targets, the full
 * paths of "all-linear" and of a pattern, the heads of a classifier, and GPT-2's transposed weights.
 *
 * @throws E_ADAPTER_TARGET
 */
export function completeLoraConfig(config: LoraConfig, model: BaseModel): LoraConfig {
  const isClassifier = config.task_type === "SEQ_CLS";
  const head = isClassifier
    ? classifierHeads.find((name) => model.weights.some((w) => w.name === `${name}.weight`))
    : "lm_head";
  const { modelType, adapterTargets, inputMajorPrefix } = model.facts;
  let target_modules = config.target_modules ?? adapterTargets;
  if (config.target_modules === null && adapterTargets.length === 0) {
    const problem = `target_modules is not set, and model_type ${modelType} has no usual ones`;
    throw new LockstepError("E_ADAPTER_TARGET", { problem });
  }
  const heads = isClassifier ? classifierHeads : [];
  const saved = [...new Set([...(config.modules_to_save ?? []), ...heads])];
  const isExcluded = (path: string): boolean =>
    config.exclude_modules !== null && matchesModule(config.exclude_modules, path);
  const isAll = typeof target_modules === "string" && isAllLinear(target_modules);
  if (typeof target_modules === "string") {
    // peft fails at a pattern that takes in a module without weights, such as an activation: paths do not.
    const pattern = isAll ? undefined : target_modules;
    const found = linearModules(model)
      .map(({ path }) => path)
      .filter((path) => (pattern === undefined ? path !== head : matchesModule(pattern, path)))
      .filter((path) => !isSavedWhole(saved, `${path}.weight`) && !isExcluded(path))
      .filter((path) => isChosenLayer(config, path))
      .sort();
    if (found.length > 0 || pattern === undefined) target_modules = found;
  }
  return {
    ...config,
    target_modules,
    // Full paths name their layers, and peft takes no layers beside "all-linear".
    ...(isAll ? { layers_to_transform: null, layers_pattern: null } : {}),
    modules_to_save: saved.length === 0 ? null : saved,
    fan_in_fan_out: inputMajorPrefix !== undefined,
  };
}

/**
 * The modules that a complete configuration adapts, in the order of the model's weights.
 *
 * @throws E_ADAPTER_TARGET where there are none
 */
export function adaptedModules(config: LoraConfig, model: BaseModel): readonly LinearModule[] {
  const modules = linearModules(model).filter(({ path }) => isTarget(config, path));
  if (modules.length === 0) {
    const wanted = JSON.stringify(config.target_modules)?.slice(0, 200) ?? "nothing";
    const left =
      config.exclude_modules === null && config.modules_to_save === null
        ? ""
        : " that exclude_modules and modules_to_save leave to it";
    const problem = `target_modules ${wanted} matches no linear module of this ${model.facts.modelType} model${left}`;
    throw new LockstepError("E_ADAPTER_TARGET", { problem });
  }
  return modules;
}

/** Every linear map: matrices that are not embedding tables. */
export function linearModules({ facts, weights }: BaseModel): readonly LinearModule[] {
  return weights
    .filter(({ name, shape }) => {
      return shape.length === 2 && name.endsWith(".weight") && !isEmbeddingTable(facts, name);
    })
    .map(({ name, shape }) => {
      const path = name.slice(0, -".weight".length);
      const [rows, columns] = shape as [number, number];
      return isInputMajor(facts, path)
        ? { path, numInputs: rows, numOutputs: columns }
        : { path, numInputs: columns, numOutputs: rows };
    });
}

/** Whether a module's weight lies as [inputs, outputs]: those of GPT-2, its heads excepted. */
export const isInputMajor = ({ inputMajorPrefix }: AdapterFacts, path: string): boolean =>
  inputMajorPrefix !== undefined && path.startsWith(inputMajorPrefix);

/** Whether a weight is an embedding table. */
export const isEmbeddingTable = ({ embeddingModules }: AdapterFacts, weight: string): boolean =>
  embeddingModules.some((module) => matchesModule([`${module}.weight`], weight));

/** peft's `check_target_module_exists`. */
export function isTarget(config: LoraConfig, path: string): boolean {
  const { target_modules, exclude_modules, modules_to_save } = config;
  if (exclude_modules !== null && matchesModule(exclude_modules, path)) return false;
  const isSaved = (name: string): boolean =>
    path === name ||
    path.startsWith(`${name}.`) ||
    path.endsWith(`.${name}`) ||
    path.includes(`.${name}.`);
  if (modules_to_save?.some(isSaved) === true || target_modules === null) return false;
  if (typeof target_modules === "string") return matchesModule(target_modules, path);
  if (target_modules.includes(path)) return true;
  return matchesModule(target_modules, path) && isChosenLayer(config, path);
}

/** The rank of a module, its own where `rank_pattern` names it. */
export function rankOf(config: LoraConfig, path: string): number {
  return byPattern(config.rank_pattern, path) ?? config.r;
}

/** What B·A·x is multiplied by: alpha / r, or alpha / sqrt(r). */
export function scaleOf(config: LoraConfig, path: string): number {
  const alpha = byPattern(config.alpha_pattern, path) ?? config.lora_alpha;
  const rank = rankOf(config, path);
  return alpha / (config.use_rslora ? Math.sqrt(rank) : rank);
}

export function isAllLinear(selection: ModuleSelection): boolean {
  return typeof selection === "string" && selection.toLowerCase() === "all-linear";
}

/** A string is a regular expression for the whole path; names match whole last parts. */
export function matchesModule(selection: ModuleSelection, path: string): boolean {
  if (typeof selection === "string") return matchesWhole(selection, path);
  return selection.some((name) => path === name || path.endsWith(`.${name}`));
}

/** The modules that a weight lies in, from the outermost to its own. */
export function pathsAbove(weight: string): string[] {
  const parts = weight.split(".").slice(0, -1);
  return parts.map((_, i) => parts.slice(0, i + 1).join("."));
}

/** The modules that `modules_to_save` means. peft takes every path that ends like a name, within a part too. */
export function savedModulePaths(
  names: readonly string[],
  { weights }: { readonly weights: readonly { readonly name: string }[] },
): string[] {
  const paths = new Set(weights.flatMap(({ name }) => pathsAbove(name)));
  return [...paths].filter((path) => names.some((name) => path.endsWith(name)));
}

/** Whether a weight is trained and saved whole. */
export function isSavedWhole(names: readonly string[] | null, weight: string): boolean {
  return names !== null && savedModulePaths(names, { weights: [{ name: weight }] }).length > 0;
}

function isChosenLayer(config: LoraConfig, path: string): boolean {
  const layers = layersOf(config);
  if (layers.length === 0) return true;
  const layer = layerNumberOf(config, path);
  return layer !== undefined && layers.includes(layer);
}

/** The layers whose targets get adapters; none: all do. */
export const layersOf = ({
  layers_to_transform: layers,
}: Pick<LoraConfig, "layers_to_transform">): readonly number[] =>
  typeof layers === "number" ? [layers] : (layers ?? []);

/** The number of the layer that a module lies in, as peft finds it; undefined: in none. */
export function layerNumberOf(
  { layers_pattern }: Pick<LoraConfig, "layers_pattern">,
  path: string,
): number | undefined {
  const patterns = typeof layers_pattern === "string" ? [layers_pattern] : (layers_pattern ?? []);
  if (patterns.length === 0) {
    const found = /^.*?\.[^.]*\.(\d+)\./.exec(path)?.[1];
    return found === undefined ? undefined : Number(found);
  }
  const parts = path.split(".");
  for (const pattern of patterns) {
    const found = numberBehind(pattern, parts);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** The number of a path's part behind parts that are what a pattern describes, the first ones and as many as fit. */
function numberBehind(pattern: string, parts: readonly string[]): number | undefined {
  for (let first = 0; first < parts.length; first++) {
    for (let at = parts.length - 2; at > first; at--) {
      const part = parts[at] as string;
      if (!/^\d+$/.test(part)) continue;
      if (matchesWhole(pattern, parts.slice(first, at).join("."))) return Number(part);
    }
  }
  return undefined;
}

/** What patterns say of a module, by the object that holds them: it is asked for often. */
const found = new WeakMap<object, Map<string, number | undefined>>();

function byPattern(patterns: Readonly<Record<string, number>>, path: string): number | undefined {
  const known = found.get(patterns) ?? new Map<string, number | undefined>();
  found.set(patterns, known);
  if (!known.has(path)) {
    const key = Object.keys(patterns).find((pattern) => matchesEnd(pattern, path));
    known.set(path, key === undefined ? undefined : patterns[key]);
  }
  return known.get(path);
}
