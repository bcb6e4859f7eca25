import { LockstepError } from "#lib/core/errors/index";
import { isRecord } from "#lib/checkpoint/file-reader";
import { formatPythonJson } from "#lib/checkpoint/python-json";
import { numStatesOf, partProblem, patternProblem } from "./patterns.js";

export const adapterConfigFileName = "adapter_config.json";

/** A module's path, or the last parts of it; a string alone is a regular expression or "all-linear". */
export type ModuleSelection = string | readonly string[];

/**
 * peft's LoraConfig under its own field names: what decides the arithmetic or where the weights
 * belong. Everything else that peft 0.21 knows is refused where it would change results.
 */
export interface LoraConfig {
  readonly task_type: string | null;
  /** Name or path of the model that the adapter was trained on. */
  readonly base_model_name_or_path: string | null;
  readonly revision: string | null;
  readonly inference_mode: boolean;
  readonly r: number;
  readonly lora_alpha: number;
  readonly lora_dropout: number;
  readonly bias: "none" | "all" | "lora_only";
  /** Base weights lie as [in, out] (GPT-2's Conv1D), so that the merged delta is transposed. */
  readonly fan_in_fan_out: boolean;
  /** null: the usual modules of the architecture. */
  readonly target_modules: ModuleSelection | null;
  readonly exclude_modules: ModuleSelection | null;
  /** Modules that are trained and saved whole, such as a classifier. */
  readonly modules_to_save: readonly string[] | null;
  /** Scale alpha / sqrt(r) instead of alpha / r. */
  readonly use_rslora: boolean;
  /** Rows of W + scale B A get the norms that a vector holds (DoRA). */
  readonly use_dora: boolean;
  /** How A begins; B begins with zeros, except for false. */
  readonly init_lora_weights: boolean | "gaussian" | "orthogonal" | "eva";
  readonly layers_to_transform: number | readonly number[] | null;
  readonly layers_pattern: ModuleSelection | null;
  /** Ranks and alphas of single modules, by regular expression at the end of their path. */
  readonly rank_pattern: Readonly<Record<string, number>>;
  readonly alpha_pattern: Readonly<Record<string, number>>;
  /** A table or head of `modules_to_save` stays tied to the other one. */
  readonly ensure_weight_tying: boolean;
}

/** The defaults of peft 0.21.2. */
export const defaultLoraConfig: LoraConfig = Object.freeze({
  task_type: null,
  base_model_name_or_path: null,
  revision: null,
  inference_mode: false,
  r: 8,
  lora_alpha: 8,
  lora_dropout: 0,
  bias: "none",
  fan_in_fan_out: false,
  target_modules: null,
  exclude_modules: null,
  modules_to_save: null,
  use_rslora: false,
  use_dora: false,
  init_lora_weights: true,
  layers_to_transform: null,
  layers_pattern: null,
  rank_pattern: {},
  alpha_pattern: {},
  ensure_weight_tying: false,
});

export interface ParsedLoraConfig {
  readonly config: LoraConfig;
  /** One sentence for each key that nobody knows: peft warns and goes on, too. */
  readonly warnings: readonly string[];
}

/** peft's other keys: any value but these changes the arithmetic. */
const unsupported: Readonly<Record<string, readonly [allowed: readonly unknown[], what: string]>> =
  {
    use_qalora: [[false, null], "QALoRA, which pools its inputs"],
    use_bdlora: [[false, null], "BD-LoRA, whose matrices are block-diagonal"],
    lora_bias: [[false, null], "a bias in lora_B"],
    alora_invocation_tokens: [[null], "aLoRA, which acts after certain tokens only"],
    arrow_config: [[null], "Arrow, which routes between adapters"],
    kasa_config: [[null], "KaSA, which changes the base weights"],
    monteclora_config: [[null], "MonteCLoRA, which samples its weights"],
    velora_config: [[null], "VeLoRA, which compresses activations"],
    layer_replication: [[null], "layers that are repeated"],
    target_parameters: [[null], "LoRA on bare parameters"],
    trainable_token_indices: [[null], "single trained tokens of an embedding"],
    megatron_config: [[null], "Megatron's parallel layers"],
  };

/** Known to peft and without effect on an adapter that is trained or loaded. */
const withoutEffect = new Set([
  "auto_mapping",
  "peft_version",
  "megatron_core",
  "qalora_group_size",
  "runtime_config",
  // How A and B began, which their stored values have outlived; the initial base is another matter, below.
  "eva_config",
  "corda_config",
  "lora_ga_config",
  "loftq_config",
]);

/** Ways to begin that only touch A and B. */
const initialisations = [true, false, "gaussian", "orthogonal", "eva"] as const;

/**
 * Reads the JSON of an adapter_config.json; `{"peft_type":"LORA"}` with `target_modules` is enough.
 *
 * @throws E_ADAPTER_UNSUPPORTED, E_ADAPTER_CONFIG
 */
export function parseLoraConfig(json: unknown, file: string): ParsedLoraConfig {
  if (!isRecord(json)) throw invalid(file, "the file", "an object", json);
  const kind = json["peft_type"];
  if (typeof kind !== "string") throw invalid(file, "peft_type", '"LORA"', kind);
  if (kind.toUpperCase() !== "LORA") {
    throw new LockstepError("E_ADAPTER_UNSUPPORTED", {
      file,
      what: `peft_type ${kind.slice(0, 40)}`,
    });
  }
  for (const [key, [allowed, what]] of Object.entries(unsupported)) {
    if (key in json && !allowed.includes(json[key])) {
      throw new LockstepError("E_ADAPTER_UNSUPPORTED", { file, what: `${key} (${what})` });
    }
  }
  const initialisation = json["init_lora_weights"];
  if (
    typeof initialisation === "string" &&
    !initialisations.some((known) => known === initialisation)
  ) {
    const what = `init_lora_weights ${initialisation.slice(0, 40)} (which changes more than where A and B begin)`;
    throw new LockstepError("E_ADAPTER_UNSUPPORTED", { file, what });
  }
  const read = reader(json, file);
  const config: LoraConfig = {
    task_type: read.text("task_type"),
    base_model_name_or_path: read.text("base_model_name_or_path"),
    revision: read.text("revision"),
    inference_mode: read.flag("inference_mode"),
    r: read.number("r", "a whole number of at least 1", (v) => Number.isSafeInteger(v) && v >= 1),
    lora_alpha: read.number("lora_alpha", "a number above 0 that float32 has", isScale),
    lora_dropout: read.number("lora_dropout", "a number from 0 to 1", (v) => v >= 0 && v <= 1),
    bias: read.choice("bias", ["none", "all", "lora_only"]),
    fan_in_fan_out: read.flag("fan_in_fan_out"),
    target_modules: read.selection("target_modules"),
    exclude_modules: read.selection("exclude_modules"),
    modules_to_save: read.texts("modules_to_save"),
    use_rslora: read.flag("use_rslora"),
    use_dora: read.flag("use_dora"),
    init_lora_weights: read.choice("init_lora_weights", initialisations),
    layers_to_transform: read.layers("layers_to_transform"),
    layers_pattern: read.selection("layers_pattern"),
    rank_pattern: read.pattern("rank_pattern"),
    alpha_pattern: read.pattern("alpha_pattern"),
    ensure_weight_tying: read.flag("ensure_weight_tying"),
  };
  const known = new Set(["peft_type", ...Object.keys(config), ...Object.keys(unsupported)]);
  const warnings = Object.keys(json)
    .filter((key) => !known.has(key) && !withoutEffect.has(key))
    .map((key) => `${file}: the key ${key.slice(0, 80)} is unknown and has no effect`);
  return { config, warnings };
}

/**
 * The file's text: the keys that every peft since 0.9 and other readers know, sorted, as Python
 * writes them. `exclude_modules` and `ensure_weight_tying` are newer and written only where they are set.
 */
export function formatLoraConfig(config: LoraConfig): string {
  const { exclude_modules, ensure_weight_tying, ...classic } = config;
  const json = {
    ...classic,
    ...(exclude_modules === null ? {} : { exclude_modules }),
    ...(ensure_weight_tying ? { ensure_weight_tying } : {}),
    peft_type: "LORA",
    auto_mapping: null,
    loftq_config: {},
    megatron_config: null,
    megatron_core: "megatron.core",
  };
  return formatPythonJson(json, (key) => !floatKeys.has(key));
}

/** The only number of the file that is a fraction; alpha may be one and is then written as one. */
const floatKeys = new Set(["lora_dropout"]);

/** Typed access to keys, the default where a key is missing or null. */
function reader(json: Readonly<Record<string, unknown>>, file: string) {
  const given = (key: keyof LoraConfig): unknown => json[key] ?? defaultLoraConfig[key];
  const fail = (key: string, expected: string): never => {
    throw invalid(file, key, expected, json[key]);
  };
  const isText = (value: unknown): value is string => typeof value === "string";
  const isTexts = (value: unknown): value is string[] =>
    Array.isArray(value) && value.every(isText) && value.length <= maxModules;
  const isCount = (value: unknown): value is number =>
    typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
  return {
    text: (key: keyof LoraConfig): string | null => {
      const value = given(key);
      return value === null || isText(value) ? value : fail(key, "text or null");
    },
    flag: (key: keyof LoraConfig): boolean => {
      const value = given(key);
      return typeof value === "boolean" ? value : fail(key, "true or false");
    },
    number: (key: keyof LoraConfig, expected: string, holds: (v: number) => boolean): number => {
      const value = given(key);
      return typeof value === "number" && holds(value) ? value : fail(key, expected);
    },
    choice: <T>(key: keyof LoraConfig, choices: readonly T[]): T => {
      const value = given(key);
      const found = choices.find((choice) => choice === value);
      return found === undefined ? fail(key, `one of ${choices.join(", ")}`) : found;
    },
    texts: (key: keyof LoraConfig): readonly string[] | null => {
      const value = given(key);
      return value === null || isTexts(value) ? value : fail(key, "a list of names or null");
    },
    selection: (key: keyof LoraConfig): ModuleSelection | null => {
      const value = given(key);
      if (value === null) return value;
      if (isTexts(value)) {
        // Names, except for the parts that hold the layers: those are patterns.
        if (key === "layers_pattern") for (const part of value) checkedPattern(part, key, file);
        return value;
      }
      return isText(value) ? checkedPattern(value, key, file) : fail(key, "names, text or null");
    },
    layers: (key: keyof LoraConfig): number | readonly number[] | null => {
      const value = given(key);
      if (value === null || isCount(value)) return value;
      return Array.isArray(value) && value.every(isCount) ? value : fail(key, "layer numbers");
    },
    pattern: (key: keyof LoraConfig): Readonly<Record<string, number>> => {
      const value = given(key);
      if (!isRecord(value)) return fail(key, "an object of numbers");
      const entries = Object.entries(value);
      if (entries.length > maxPatterns) return fail(key, `at most ${maxPatterns} entries`);
      let numStates = 0;
      for (const [name, item] of entries) {
        numStates += numStatesOf(checkedPattern(name, key, file));
        if (numStates > maxPatternStates) return fail(key, "shorter patterns, or fewer of them");
        if (typeof item !== "number" || !isScale(item))
          return fail(key, "an object of numbers above 0 that float32 has");
      }
      return value as Record<string, number>;
    },
  };
}

/** Names in one list: the largest open models have some ten thousand linear modules. */
const maxModules = 100_000;
/** Each may be compared with every module. */
const maxPatterns = 10_000;
/** Of those that are more than a path, together: each may be in all of its states at each character. */
const maxPatternStates = 5_000;

/** Weights are multiplied by it in float32, where more than 3.4e38 is infinite. */
const isScale = (value: number): boolean => value > 0 && Number.isFinite(Math.fround(value));

/** @throws E_ADAPTER_CONFIG for what is no regular expression, or one that is not read here */
function checkedPattern(pattern: string, key: keyof LoraConfig, file: string): string {
  const problem = key === "layers_pattern" ? partProblem(pattern) : patternProblem(pattern);
  if (problem === undefined) return pattern;
  throw invalid(file, key, "a regular expression of Python", pattern, `, ${problem}`);
}

function invalid(
  file: string,
  key: string,
  expected: string,
  value: unknown,
  problem = "",
): LockstepError {
  const shown = value === undefined ? "nothing" : (JSON.stringify(value) ?? typeof value);
  const got = `${shown.length > 80 ? `${shown.slice(0, 77)}...` : shown}${problem}`;
  return new LockstepError("E_ADAPTER_CONFIG", { file, key, expected, got });
}
