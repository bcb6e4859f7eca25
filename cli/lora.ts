import {
  classifierHeads,
  completeLoraConfig,
  defaultLoraConfig,
  initialMatrix,
  layOutAdapter,
  type LoraConfig,
  loraKey,
  loraMatrixOf,
  rankOf,
  savedKey,
} from "#lib/checkpoint/peft/index";
import { defaultOf, type SettledConfig } from "#lib/core/config/index";
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
  readonly job: LoraJob;
  /** Fills `into` with the first values of a range of what is trained. */
  readonly loadMasters: (range: ElementRange, into: Float32Array) => Promise<void>;
  /** One line about it, for a display. */
  readonly line: string;
}

/**
 * @param base the model's weights; `read` gives one whole, float32
 * @param base.newModules parts of a classifier's head that the checkpoint does not have: they are trained
 *   and saved whole, since nobody else has them
 * @returns undefined where all weights are trained
 * @throws E_ADAPTER_TARGET
 */
export function loraRun(
  config: SettledConfig,
  base: {
    /** By which others find it. */
    readonly name: string;
    readonly modelType: string;
    readonly weights: readonly { readonly name: string; readonly shape: readonly number[] }[];
    readonly isClassifier: boolean;
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
  const given: LoraConfig = {
    ...defaultLoraConfig,
    task_type: base.isClassifier ? "SEQ_CLS" : "CAUSAL_LM",
    base_model_name_or_path: base.name,
    revision: config.model_revision === defaultOf("model_revision") ? null : config.model_revision,
    r: config.lora_r,
    lora_alpha: config.lora_alpha,
    target_modules: config.lora_target_modules,
    modules_to_save: saved.length === 0 ? null : saved,
    use_rslora: config.use_rslora,
  };
  const complete = completeLoraConfig(given, base);
  const { trained: layout, lora: job } = layOutAdapter(complete, base, {
    wireDtype: config.wire_dtype,
    frozenDtype: config.bf16 ? "bfloat16" : "float32",
  });
  const numTrained = numElements(layout);
  const total = numTrained + numElements(job.frozen);
  const paths = Object.keys(job.scales);
  return {
    config: complete,
    baseName: base.name,
    layout,
    job,
    loadMasters: (range, into) =>
      fillRange(layout, range, into, async (slot) => {
        const matrix = loraMatrixOf(slot.name)?.matrix;
        if (matrix === undefined) return base.read(slot);
        return initialMatrix(matrix, slot.shape, config.seed, 1000 + layout.tensors.indexOf(slot));
      }),
    line:
      `LoRA of rank ${rankOf(complete, paths[0] as string)} on ${paths.length} modules: ` +
      `${numTrained.toLocaleString("en-US")} of ${total.toLocaleString("en-US")} parameters are trained`,
  };
}

/** The key of a trained tensor in peft's adapter file. */
export function adapterKey(name: string): string {
  const lora = loraMatrixOf(name);
  return lora === undefined ? savedKey(name) : loraKey(lora.path, lora.matrix);
}

const numElements = (layout: ParameterLayout): number =>
  layout.tensors.reduce((sum, { size }) => sum + size, 0);
