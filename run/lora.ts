import {
  checkModuleNames,
  checkNoneTwice,
  checkTargetPattern,
  classifierHeads,
  completeLoraConfig,
  defaultLoraConfig,
  type HeadTie,
  headTieOf,
  initialMatrix,
  layOutAdapter,
  type LoraConfig,
  loraKey,
  loraMatrixOf,
  rankOf,
  savedKey,
  tiedHeadPath,
  tiedModulesToSave,
  withTiedHead,
} from "#lib/checkpoint/peft/index";
import { tiedEmbeddingName } from "#lib/checkpoint/tied-head";
import { defaultOf, type SettledConfig } from "#lib/config/index";
import { LockstepError } from "#lib/core/errors/index";
import type { LoraJob } from "#lib/core/job";
import type { ElementRange, ParameterLayout, TensorSlot } from "#lib/core/parameter-layout";
import { fillRange } from "#lib/core/wire-space";

/** A run that trains adapters beside a model's weights instead of the weights. */
export interface LoraRun {
  /** As it is saved. */
  readonly config: LoraConfig;
  /** By which others find the base model. */
  readonly baseName: string;
  /** What is trained. */
  readonly layout: ParameterLayout;
  readonly frozen: ParameterLayout;
  readonly job: LoraJob;
  /** Fields of config.json that are others than the base model's while it trains. */
  readonly modelChanges: Readonly<Record<string, unknown>>;
  /** The base model's weight that a weight of the run begins as. */
  readonly sourceOf: (name: string) => string;
  /** Fills `into` with the first values of a range of what is trained. */
  readonly loadMasters: (range: ElementRange, into: Float32Array) => Promise<void>;
  /** About it, for a display. */
  readonly lines: readonly string[];
}

/**
 * @param base the model's weights, without a head that is tied; `read` gives one whole, float32
 * @param base.newModules parts of a classifier's head that the checkpoint does not have: they are trained
 *   and saved whole, since nobody else has them
 * @returns undefined where all weights are trained
 * @throws E_ADAPTER_TARGET, E_ADAPTER_MODULE, E_CONFIG_CONFLICT
 */
export function loraRun(
  config: SettledConfig,
  base: {
    /** By which others find it. */
    readonly name: string;
    readonly modelType: string;
    readonly weights: readonly { readonly name: string; readonly shape: readonly number[] }[];
    readonly isClassifier: boolean;
    /** Whether its head is the embedding table. */
    readonly isTied: boolean;
    readonly newModules: readonly string[];
    readonly read: (slot: TensorSlot) => Promise<Float32Array>;
  },
): LoraRun | undefined {
  if (!config.use_peft) return undefined;
  // What lies within a head is saved with it; peft would wrap it twice.
  const newModules = base.newModules.filter(
    (path) => !classifierHeads.some((head) => `${path}.`.startsWith(`${head}.`)),
  );
  const saved = [...new Set([...(config.lora_modules_to_save ?? []), ...newModules])];
  const asked: LoraConfig = {
    ...defaultLoraConfig,
    task_type: base.isClassifier ? "SEQ_CLS" : "CAUSAL_LM",
    base_model_name_or_path: base.name,
    revision: config.model_revision === defaultOf("model_revision") ? null : config.model_revision,
    r: config.lora_r,
    lora_alpha: config.lora_alpha,
    target_modules: config.lora_target_modules,
    modules_to_save: saved.length === 0 ? null : saved,
    use_rslora: config.use_rslora,
    ensure_weight_tying: config.ensure_weight_tying,
  };
  checkTargetPattern(asked);
  const embedding = base.isTied
    ? tiedEmbeddingName(base.weights.map(({ name }) => name))
    : undefined;
  const tie = tieOf(asked, base, embedding);
  const embeddingPath = embedding?.replace(/\.weight$/, "") ?? "";
  const named = tie === "untouched" ? base.weights : withTiedHead(base, embeddingPath);
  checkModuleNames(
    { ...asked, modules_to_save: config.lora_modules_to_save },
    { modelType: base.modelType, weights: named },
  );
  const model = { modelType: base.modelType, weights: tie === "untied" ? named : base.weights };
  const complete = completeLoraConfig(
    tie === "tied" ? { ...asked, modules_to_save: tiedModulesToSave(saved, embeddingPath) } : asked,
    model,
  );
  checkNoneTwice(complete, model);
  const {
    trained: layout,
    frozen,
    lora: job,
  } = layOutAdapter(complete, model, {
    wireDtype: config.wire_dtype,
    frozenDtype: config.bf16 ? "bfloat16" : "float32",
  });
  const sourceOf = (name: string): string =>
    tie === "untied" && name === headWeight ? (embedding ?? name) : name;
  const numTrained = numElements(layout);
  const total = numTrained + numElements(frozen);
  const paths = Object.keys(job.scales);
  return {
    config: complete,
    baseName: base.name,
    layout,
    frozen,
    job,
    modelChanges: tie === "untied" ? { tie_word_embeddings: false } : {},
    sourceOf,
    loadMasters: (range, into) =>
      fillRange(layout, range, into, async (slot) => {
        const matrix = loraMatrixOf(slot.name)?.matrix;
        if (matrix === undefined) return base.read({ ...slot, name: sourceOf(slot.name) });
        return initialMatrix(matrix, slot.shape, config.seed, 1000 + layout.tensors.indexOf(slot));
      }),
    lines: [
      `LoRA of rank ${rankOf(complete, paths[0] as string)} on ${paths.length} modules: ` +
        `${numTrained.toLocaleString("en-US")} of ${total.toLocaleString("en-US")} parameters are trained`,
      ...tieLines[tie],
    ],
  };
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

/** The tensors of the adapter's file and what of the trained space they hold. */
export function adapterTensors(
  { ensure_weight_tying }: LoraConfig,
  { tensors }: ParameterLayout,
): readonly { readonly name: string; readonly slot: TensorSlot }[] {
  const own = tensors.map((slot) => ({ name: adapterKey(slot.name), slot }));
  const embedding = ensure_weight_tying
    ? tiedEmbeddingName(tensors.map(({ name }) => name))
    : undefined;
  const table = tensors.find(({ name }) => name === embedding);
  // peft reads a tied head from the file too.
  return table === undefined ? own : [...own, { name: savedKey(headWeight), slot: table }];
}

/** The key of a trained tensor in peft's adapter file. */
function adapterKey(name: string): string {
  const lora = loraMatrixOf(name);
  return lora === undefined ? savedKey(name) : loraKey(lora.path, lora.matrix);
}

const numElements = (layout: ParameterLayout): number =>
  layout.tensors.reduce((sum, { size }) => sum + size, 0);
