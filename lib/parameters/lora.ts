import {
  checkModuleNames,
  checkNoneTwice,
  checkTargetPattern,
  classifierHeads,
  completeLoraConfig,
  defaultLoraConfig,
  type HeadTie,
  headTieOf,
  type LoraConfig,
  rankOf,
  tiedHeadPath,
  tiedModulesToSave,
  withTiedHead,
} from "#lib/checkpoint/peft/index";
import { LockstepError } from "#lib/core/errors/index";
import { fillRange } from "#lib/core/wire-space";
import type { ChoiceOptions, ChosenParameters, ParametersKind } from "./kind.js";
import { saveAdapter } from "./lora-files.js";
import { loraFields, type LoraSettings } from "./lora-keys.js";
import { frozenFormOf, quantizationLines } from "./quantization.js";
import { initialMatrix, layOutAdapter, loraMatrixOf } from "./lora-layout.js";
import { numElements, type StartingModel, weightsIn } from "./model.js";

/** Low-rank adapters (LoRA, Hu et al. 2021) beside weights that stay as they are. */
export const lora = {
  name: "lora",
  title: "LoRA",
  summary: "LoRA adapters (use_peft: true)",
  turnedOnBy: ["use_peft", true],
  fields: loraFields,
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
  { seed, frozenDtype, ...options }: ChoiceOptions,
): ChosenParameters {
  // What lies within a head is saved with it; peft would wrap it twice.
  const newModules = base.newWeights
    .map(moduleOf)
    .filter((path) => !classifierHeads.some((head) => `${path}.`.startsWith(`${head}.`)));
  const saved = [...new Set([...(config.lora_modules_to_save ?? []), ...newModules])];
  const asked: LoraConfig = {
    ...defaultLoraConfig,
    task_type: base.isClassifier ? "SEQ_CLS" : "CAUSAL_LM",
    base_model_name_or_path: base.name,
    revision: base.revision,
    r: config.lora_r,
    lora_alpha: config.lora_alpha,
    lora_dropout: config.lora_dropout,
    target_modules: config.lora_target_modules,
    modules_to_save: saved.length === 0 ? null : saved,
    use_rslora: config.use_rslora,
    ensure_weight_tying: config.ensure_weight_tying,
  };
  checkTargetPattern(asked);
  const { facts, tiedEmbedding: embedding } = base;
  const tie = tieOf(asked, base, embedding);
  const embeddingPath = embedding?.replace(/\.weight$/, "") ?? "";
  const named = tie === "untouched" ? base.weights : withTiedHead(base, embeddingPath);
  checkModuleNames(
    { ...asked, modules_to_save: config.lora_modules_to_save },
    { facts, weights: named },
  );
  const model = { facts, weights: tie === "untied" ? named : base.weights };
  const complete = completeLoraConfig(
    tie === "tied" ? { ...asked, modules_to_save: tiedModulesToSave(saved, embeddingPath) } : asked,
    model,
  );
  checkNoneTwice(complete, model);
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
  const sourceOf = (name: string): string =>
    tie === "untied" && name === headWeight ? (embedding ?? name) : name;
  const source = {
    read: ((name, ...part) => base.read(sourceOf(name), ...part)) satisfies StartingModel["read"],
  };
  const numTrained = numElements(layout.tensors);
  const total = numTrained + numElements(frozen.tensors);
  const paths = Object.keys(job.scales);
  return {
    layout,
    frozen,
    job,
    inputDropout: config.lora_dropout,
    modelChanges: tie === "untied" ? { tie_word_embeddings: false } : {},
    loadMasters: (range, into) =>
      fillRange(layout, range, into, async (slot) => {
        const matrix = loraMatrixOf(slot.name)?.matrix;
        if (matrix === undefined) return source.read(slot.name);
        return initialMatrix(matrix, slot.shape, seed, 1000 + matrices.indexOf(slot.name));
      }),
    loadFrozen: weightsIn(frozen, source),
    lines: [
      `LoRA of rank ${rankOf(complete, paths[0] as string)} on ${paths.length} modules: ` +
        `${numTrained.toLocaleString("en-US")} of ${total.toLocaleString("en-US")} parameters are trained`,
      ...quantizationLines(frozen),
      ...tieLines[tie],
    ],
    adapterBase: base.name,
    save: (directory, content) =>
      saveAdapter(directory, { base, config: complete, layout }, content),
  };
}

/** The module of a weight or bias. */
const moduleOf = (name: string): string => name.replace(/\.(weight|bias)$/, "");

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
