import {
  checkModuleNames,
  checkNoneTwice,
  checkPatternsMatch,
  checkLayers,
  checkPatterns,
  classifierHeads,
  completeLoraConfig,
  defaultLoraConfig,
  type HeadTie,
  headTieOf,
  type LoraConfig,
  rankOf,
  moduleOf,
  tiedHeadPath,
  tiedModulesToSave,
  withTiedHead,
} from "#lib/checkpoint/peft/index";
import { LockstepError } from "#lib/core/errors/index";
import { fillRange } from "#lib/core/wire-space";
import type { ChoiceOptions, ChosenParameters, ParametersKind } from "./kind.js";
import { saveAdapter } from "./lora-files.js";
import { checkContinued, continuedConfig } from "./lora-continued.js";
import { loraFields, type LoraSettings } from "./lora-keys.js";
import { layOutAdapter } from "./lora-layout.js";
import { firstValues } from "./lora-start.js";
import { frozenFormOf, quantizationFields, quantizationLines } from "./quantization.js";
import { numElements, type StartingModel, weightsIn } from "./model.js";

/** Low-rank adapters (LoRA, Hu et al. 2021) beside weights that stay as they are. */
export const lora = {
  name: "lora",
  title: "LoRA",
  summary: "LoRA adapters (use_peft: true)",
  turnedOnBy: ["use_peft", true],
  fields: loraFields,
  demands: ["adapter_name_or_path", "load_in_4bit"],
  onlyWith: {
    load_in_4bit: Object.keys(quantizationFields).filter((key) => key !== "load_in_4bit"),
  },
  wireDtype: "float32",
  saves: "adapter",
  changesForward: true,
  choose: chooseAdapters,
} as const satisfies ParametersKind<typeof loraFields>;

/**
 * Adapters beside a model's weights. What of a classifier's head the checkpoint does not have is trained and
 * saved whole, since nobody else has it.
 *
 * @throws E_ADAPTER_TARGET, E_ADAPTER_MODULE, E_CONFIG_CONFLICT
 */
function chooseAdapters(
  config: LoraSettings,
  base: StartingModel,
  { seed, isGiven, frozenDtype, ...options }: ChoiceOptions,
): ChosenParameters {
  // What lies within a head is saved with it; peft would wrap it twice.
  const newModules = base.newWeights
    .map(moduleOf)
    .filter((path) => !classifierHeads.some((head) => `${path}.`.startsWith(`${head}.`)));
  const saved = [...new Set([...(config.lora_modules_to_save ?? []), ...newModules])];
  const ofSettings = configOf(config, base, saved);
  checkPatterns(ofSettings);
  const { adapter } = base;
  // An adapter may name modules that its model does not have, as peft lets it.
  const named = <T>(value: T, key: keyof LoraSettings): T | null =>
    adapter === undefined || isGiven(key) ? value : null;
  const continued = adapter === undefined ? undefined : { adapter, settings: config, isGiven };
  const asked =
    continued === undefined ? ofSettings : continuedConfig(ofSettings, continued, newModules);
  const { facts, tiedEmbedding: embedding } = base;
  const tie = tieOf(asked, base, embedding);
  const layers = named(config.lora_layers_to_transform, "lora_layers_to_transform");
  const embeddingPath = embedding?.replace(/\.weight$/, "") ?? "";
  const weights = tie === "untouched" ? base.weights : withTiedHead(base, embeddingPath);
  checkModuleNames(
    {
      ...ofSettings,
      target_modules: named(config.lora_target_modules, "lora_target_modules"),
      exclude_modules: named(config.lora_exclude_modules, "lora_exclude_modules"),
      modules_to_save: named(config.lora_modules_to_save, "lora_modules_to_save"),
    },
    { facts, weights },
  );
  checkLayers({ ...ofSettings, layers_to_transform: layers }, base);
  const model = { facts, weights: tie === "untied" ? weights : base.weights };
  const complete = completeLoraConfig(
    tie === "tied"
      ? { ...asked, modules_to_save: tiedModulesToSave(asked.modules_to_save ?? [], embeddingPath) }
      : asked,
    model,
  );
  checkNoneTwice(complete, model);
  if (config.load_in_4bit && complete.use_dora) {
    const reason = "DoRA takes norms of whole weights, and of 4 bits these are never there at once";
    throw new LockstepError("E_CONFIG_CONFLICT", { keys: "use_dora and load_in_4bit", reason });
  }
  checkPatternsMatch(
    {
      ...complete,
      layers_to_transform: adapter === undefined ? complete.layers_to_transform : layers,
      rank_pattern: named(complete.rank_pattern, "lora_rank_pattern") ?? {},
      alpha_pattern: named(complete.alpha_pattern, "lora_alpha_pattern") ?? {},
    },
    model,
  );
  const {
    trained: layout,
    frozen,
    job,
    matrices,
  } = layOutAdapter(complete, model, {
    ...options,
    frozenDtype: frozenFormOf(config, model, frozenDtype),
    loraPlusRatio: config.loraplus_lr_ratio ?? 1,
  });
  if (continued !== undefined) checkContinued(complete, { model, trained: layout }, continued);
  const sourceOf = (name: string): string =>
    tie === "untied" && name === headWeight ? (embedding ?? name) : name;
  const source = {
    read: ((name, ...part) => base.read(sourceOf(name), ...part)) satisfies StartingModel["read"],
    storedAs: (name: string) => base.storedAs?.(sourceOf(name)),
  };
  const numTrained = numElements(layout.tensors);
  const total = numTrained + numElements(frozen.tensors);
  const paths = Object.keys(job.scales);
  return {
    layout,
    frozen,
    job,
    inputDropout: complete.lora_dropout,
    modelChanges: tie === "untied" ? { tie_word_embeddings: false } : {},
    loadMasters: (range, into) =>
      fillRange(
        layout,
        range,
        into,
        async (slot) =>
          adapter?.readSaved(slot.name) ??
          firstValues(slot, { facts, read: source.read, config: complete, matrices, seed }),
      ),
    loadFrozen: weightsIn(frozen, source),
    lines: [
      `${complete.use_dora ? "DoRA" : "LoRA"} of ${ranksOf(complete, paths)} on ${paths.length} modules: ` +
        `${numTrained.toLocaleString("en-US")} of ${total.toLocaleString("en-US")} parameters are trained`,
      ...quantizationLines(frozen),
      ...(adapter === undefined ? [] : [startLine(adapter, base.name)]),
      ...tieLines[tie],
    ],
    adapterBase: base.name,
    save: (directory, content) =>
      saveAdapter(directory, { base, config: complete, layout }, content),
  };
}

/** A configuration of peft out of ours. @param saved modules that are saved whole */
function configOf(config: LoraSettings, base: StartingModel, saved: readonly string[]): LoraConfig {
  return {
    ...defaultLoraConfig,
    task_type: base.isClassifier ? "SEQ_CLS" : "CAUSAL_LM",
    base_model_name_or_path: base.name,
    revision: base.revision,
    r: config.lora_r,
    lora_alpha: config.lora_alpha,
    lora_dropout: config.lora_dropout,
    target_modules: config.lora_target_modules,
    exclude_modules: config.lora_exclude_modules,
    layers_to_transform: config.lora_layers_to_transform,
    layers_pattern: config.lora_layers_pattern,
    rank_pattern: config.lora_rank_pattern ?? {},
    alpha_pattern: config.lora_alpha_pattern ?? {},
    init_lora_weights: config.init_lora_weights,
    modules_to_save: saved.length === 0 ? null : saved,
    use_rslora: config.use_rslora,
    use_dora: config.use_dora,
    ensure_weight_tying: config.ensure_weight_tying,
  };
}

/** Where an adapter's first values are from, and what base it names where nothing else tells that it is this one. */
function startLine(
  { directory, config, isBound }: NonNullable<StartingModel["adapter"]>,
  baseName: string,
): string {
  const { base_model_name_or_path: own } = config;
  const isOther = !isBound && own !== null && own !== baseName;
  return `they begin with the adapter of ${directory}${isOther ? `, which names ${own} as its base model` : ""}`;
}

/** The ranks of modules, in words. */
function ranksOf(config: LoraConfig, paths: readonly string[]): string {
  const ranks = [...new Set(paths.map((path) => rankOf(config, path)))].sort((a, b) => a - b);
  return `rank ${ranks.length > 3 ? `${ranks[0]} to ${ranks.at(-1)}` : ranks.join(" and ")}`;
}

const headWeight = `${tiedHeadPath}.weight`;

const tieLines: Readonly<Record<HeadTie, readonly string[]>> = {
  untouched: [],
  untied: [
    "lm_head and embed_tokens, one weight in the base model, are two here, as in peft (ensure_weight_tying: true keeps them one)",
  ],
  tied: ["lm_head and embed_tokens are trained as the one weight that they are in the base model"],
};

/** @throws E_CONFIG_CONFLICT where there is nothing that `ensure_weight_tying` could tie */
function tieOf(
  asked: LoraConfig,
  base: Parameters<typeof headTieOf>[1] & { readonly isClassifier: boolean },
  embedding: string | undefined,
): HeadTie {
  const tie =
    embedding === undefined || base.isClassifier
      ? "untouched"
      : headTieOf(asked, base, embedding.replace(/\.weight$/, ""));
  if (tie !== "untouched" || !asked.ensure_weight_tying) return tie;
  const keys = "ensure_weight_tying and lora_modules_to_save";
  const reason =
    embedding === undefined || base.isClassifier
      ? "the model ties no head to its embedding table"
      : "neither embed_tokens nor lm_head is trained";
  throw new LockstepError("E_CONFIG_CONFLICT", { keys, reason });
}
