import { z } from "zod";
import { objectives } from "#lib/objectives/index";
import { comparableMetrics } from "#lib/objectives/metrics";
import { optimizerNames, optimizers } from "#lib/optim/optimizers/index";
import { parametersKinds, parametersNames, partFields } from "#lib/parameters/index";
import { cluster } from "./cluster-fields.js";
import { formatNames } from "./columns.js";
import { declaredFields, declaredSections } from "./declared-fields.js";
import { generalFields } from "./general-fields.js";
import { hub } from "./hub-fields.js";
import { nats } from "./nats-fields.js";
import { store } from "./store-fields.js";
import { randomFields } from "./random-fields.js";
import { taskFields } from "./task-fields.js";
import { schedulerNames } from "./schedule-names.js";
import { positiveStepsOrFraction, stepsOrFraction } from "./step-fields.js";

const objectiveKinds = objectives.map(({ kind }) => kind);

// Names and defaults of the first sections are those of transformers.TrainingArguments (5.24); a default that
// differs says why. The key in YAML, the flag and the property have one name.

const count = z.int().min(1);
const text = z.string().min(1);

/** Files or names; an entry also says what its rows look like (dataset-entries.ts). */
const datasets = z.union([
  text,
  z.array(z.union([text, z.record(z.string(), z.unknown())])).min(1),
]);

const modelAndData = {
  model_name_or_path: text.describe(
    "directory, a model in the cache's models/, or the id of a model of the Hugging Face Hub",
  ),
  model_revision: text
    .default("main")
    .describe("branch, tag or commit of a model of the hub (name of TRL and LLaMA-Factory)"),
  dataset: datasets.describe(
    "a built-in name (sotu), names of dataset_dir/dataset_info.json, or files; or axolotl's entries",
  ),
  dataset_dir: text
    .default("data")
    .describe("directory whose dataset_info.json describes data sets by name, as in LLaMA-Factory"),
  dataset_format: z
    .enum(["auto", ...formatNames])
    .default("auto")
    .describe("what rows hold; auto: recognised by their columns"),
  objective: z
    .enum(["auto", ...objectiveKinds] as [string, ...string[]])
    .default("auto")
    .describe(
      "what is learnt, by transformers' problem_type for classes; auto: of rows with a label the classes of a model that has some, else what the first label is (a fraction: regression); of others the next token",
    ),
  on_bad_row: z
    .enum(["error", "skip"])
    .default("error")
    .describe("what a row that cannot be used does: end the run, or be counted and listed"),
  chat_template_date: z.iso
    .date()
    .nullable()
    .default(null)
    .describe(
      "day that the chat template writes where it asks for today (strftime_now), YYYY-MM-DD; null: the day the run starts, kept when it is resumed",
    ),
  packing: z
    .boolean()
    .nullable()
    .default(null)
    .describe(
      "null: texts share rows, other examples have a row each; true: all share, false: none",
    ),
  dataset_text_field: text
    .nullable()
    .default(null)
    .describe("column of texts that are learnt whole; null: text"),
  columns: z
    .record(z.string(), text.nullable())
    .nullable()
    .default(null)
    .describe("the data's names of columns, by ours: {text: review, label: sentiment}"),
  eval_dataset: datasets
    .nullable()
    .default(null)
    .describe("files for validation; null splits dataset"),
  validation_split: z
    .number()
    .min(0)
    .refine((value) => value <= 0.9 || (value >= 1 && Number.isInteger(value)), {
      message: "a share of 0 to 0.9, or a whole number of examples",
    })
    .default(0.1)
    .describe(
      "examples kept for validation where no eval_dataset is given, and general ones where no general_eval_dataset is",
    ),
  special_tokens: z
    .record(z.string(), z.union([text, z.array(text)]).nullable())
    .nullable()
    .default(null)
    .describe("tokens that the model's tokenizer has to have, by name (eos_token); none is added"),
  chat_template: text
    .nullable()
    .default(null)
    .describe(
      "format that conversations are to have (chatml, llama3, ...); it has to be that of the model's own chat template, which writes them",
    ),
  max_length: z.int().min(2).default(1024).describe("tokens in a row (default of TRL)"),
  max_samples: count.nullable().default(null).describe("read only so many rows of each data set"),
  max_train_samples: count.nullable().default(null).describe("use only so many training rows"),
  max_eval_samples: count.nullable().default(null).describe("use only so many validation rows"),
};

const general = generalFields(datasets);

/** A metric of a task, whose name is checked once the tasks are known. */
const taskMetric = text.regex(/^(eval_)?[A-Za-z][A-Za-z0-9-]*_\w+$/);

/** Keys that objectives declare as their own. */
const objectiveFields = declaredFields(objectives);

/** Keys that optimizers declare as their own. */
export const optimizerFields = declaredFields(optimizers);

const tasks = taskFields({
  objective: modelAndData.objective,
  dataset_format: modelAndData.dataset_format,
  max_length: modelAndData.max_length,
  packing: modelAndData.packing,
  ...objectiveFields,
});

const optimisation = {
  num_train_epochs: z.number().positive().default(3),
  max_steps: z
    .int()
    .min(-1)
    .default(-1)
    .describe("optimizer updates; above 0 it overrides num_train_epochs"),
  per_device_train_batch_size: count.default(8).describe("rows in a micro-batch"),
  per_device_eval_batch_size: count.default(8),
  train_sampling_strategy: z
    .enum(["random", "sequential", "group_by_length"])
    .default("random")
    .describe("order of the rows of an epoch"),
  gradient_accumulation_steps: count.default(1).describe("micro-batches a worker in a step"),
  learning_rate: z.number().min(0).default(5e-5),
  lr_scheduler_type: z.enum(schedulerNames).default("linear"),
  lr_scheduler_kwargs: z
    .record(z.string(), z.union([z.number(), z.string(), z.boolean()]))
    .nullable()
    .default(null),
  warmup_steps: stepsOrFraction.default(0).describe("steps, or a fraction (rounded up)"),
  ...partFields,
  optim: z.enum(optimizerNames).default("adamw_torch_fused"),
  optim_args: z
    .union([text, z.record(z.string(), z.union([z.number(), z.boolean(), z.string()]))])
    .nullable()
    .default(null)
    .describe("arguments of the optimizer: NAME=VALUE with commas between them, or a mapping"),
  weight_decay: z.number().min(0).default(0).describe("matrices only"),
  ...optimizerFields,
  ...randomFields,
  ema_decay: z
    .number()
    .gt(0)
    .lt(1)
    .nullable()
    .default(null)
    .describe(
      "decay of a moving average of the weights over all updates, saved beside them in ema/; null: there is none",
    ),
  max_grad_norm: z.number().min(0).nullable().default(1).describe("0 or null: no clipping"),
};

const precision = {
  bf16: z
    .union([z.boolean(), z.literal("auto")])
    .default(false)
    .describe(
      "matrix products in bfloat16, master weights float32; auto: where the device that computes has instructions for it",
    ),
  fp16: z
    .union([z.boolean(), z.literal("auto")])
    .default(false)
    .describe(
      "matrix products in float16 with a dynamic loss scale, master weights float32; auto: on a GPU that has instructions for it, where bf16 is not chosen",
    ),
  gradient_checkpointing: z
    .boolean()
    .nullable()
    .default(null)
    .describe("true: backward computes a layer's activations again, for less memory and more time"),
  use_cpu: z.boolean().default(false).describe("hide GPUs from the workers"),
  xla: z
    .boolean()
    .default(false)
    .describe("the whole gradient computation as one function compiled by XLA; meant for GPUs"),
};

const parameters = {
  finetuning_type: z
    .enum(parametersNames)
    .nullable()
    .default(null)
    .describe(
      "what is trained (name of LLaMA-Factory); null: lora where use_peft is true, else full",
    ),
};

const reporting = {
  output_dir: text.default("trainer_output"),
  overwrite_output_dir: z
    .boolean()
    .default(false)
    .describe(
      "start clean where output_dir holds another run: what Lockstep wrote there is removed, other files stay",
    ),
  run_name: text.nullable().default(null),
  logging_strategy: z.enum(["no", "steps", "epoch"]).default("steps"),
  logging_steps: positiveStepsOrFraction.default(500),
  logging_first_step: z.boolean().default(false),
  disable_tqdm: z.boolean().nullable().default(null).describe("true: plain log lines"),
  eval_strategy: z.enum(["no", "steps", "epoch"]).default("no"),
  eval_steps: positiveStepsOrFraction.nullable().default(null).describe("null: logging_steps"),
  eval_delay: z
    .number()
    .min(0)
    .default(0)
    .describe("steps, or epochs where eval_strategy is epoch, before the first evaluation"),
  eval_on_start: z.boolean().default(false),
  include_num_input_tokens_seen: z
    .union([z.enum(["no", "all", "non_padding"]), z.boolean()])
    .default("no")
    .describe("add token counts to the history, with padding or without; true: all"),
  save_strategy: z
    .enum(["no", "steps", "epoch", "best"])
    .default("steps")
    .describe("best: when an evaluation is better than all before"),
  save_steps: positiveStepsOrFraction.default(500),
  save_total_limit: count.nullable().default(null).describe("the best and the newest always stay"),
  save_only_model: z.boolean().default(false),
  ...store,
  save_retry_ms: z
    .int()
    .min(0)
    .max(604_800_000)
    .default(3_600_000)
    .describe(
      "how long the end of a run repeats a save that the file system refuses, as a full disk does; before that training goes on meanwhile",
    ),
  load_best_model_at_end: z
    .boolean()
    .default(false)
    .describe("the finished model is that of the best evaluation"),
  metric_for_best_model: z
    .union([z.enum(comparableMetrics() as [string, ...string[]]), taskMetric])
    .nullable()
    .default(null)
    .describe(
      "null: loss, where load_best_model_at_end asks for one; others are of rows with labels, and of a task eval_NAME_loss, eval_NAME_accuracy, ...",
    ),
  greater_is_better: z
    .boolean()
    .nullable()
    .default(null)
    .describe("null: as the metric has it, false for losses and errors"),
  early_stopping_patience: count
    .nullable()
    .default(null)
    .describe(
      "end the run after so many evaluations in a row that are no better than the best before, by metric_for_best_model; null: it makes all its steps",
    ),
  early_stopping_threshold: z
    .number()
    .min(0)
    .default(0)
    .describe("how much better than the best before an evaluation has to be, to count as better"),
  resume_from_checkpoint: z
    .union([text, z.boolean()])
    .nullable()
    .default(null)
    .describe(
      "a checkpoint directory, or true for the newest one in output_dir; auto: the newest if there is one, else start",
    ),
  seed: z.int().min(0).max(0xffff_ffff).default(42),
  data_seed: z.int().min(0).max(0xffff_ffff).nullable().default(null).describe("null: seed"),
};

// Below: Lockstep's own keys.

const afterTraining = {
  eval_on_end: z.boolean().default(true).describe("evaluate once more after the last step"),
  sample_prompt: text
    .nullable()
    .default(null)
    .describe("continued before and after training; a user's message where the data are chats"),
  sample_max_new_tokens: z.int().min(1).max(4096).default(48),
  save_dtype: z
    .enum(["float32", "bfloat16", "float16", "auto"])
    .default("float32")
    .describe("type of saved weights; auto: that of the model's files"),
  max_shard_size: z
    .union([count, text])
    .default("5GB")
    .describe("bytes, or text such as 5GB or 500MiB: larger weights go into several files"),
};

export const sections: Readonly<Record<string, z.ZodRawShape>> = Object.freeze({
  "Model and data": modelAndData,
  Loss: objectiveFields,
  "General data": general,
  "Several tasks": tasks,
  Optimisation: optimisation,
  Precision: precision,
  "What is trained": parameters,
  ...declaredSections(parametersKinds),
  "Logging, evaluation, saving": reporting,
  "Hugging Face Hub": hub,
  "After training": afterTraining,
  Cluster: cluster,
  NATS: nats,
});

/** Every key that Lockstep acts on. */
export const fields = {
  ...modelAndData,
  ...objectiveFields,
  ...general,
  ...tasks,
  ...optimisation,
  ...precision,
  ...parameters,
  ...declaredFields(parametersKinds),
  ...reporting,
  ...hub,
  ...afterTraining,
  ...cluster,
  ...nats,
};

export const configSchema = z.strictObject(fields);
export type ParsedConfig = z.infer<typeof configSchema>;
export type ConfigKey = keyof typeof fields;

/** The value of a key that a file does not have; undefined where it is required. */
export const defaultOf = (key: ConfigKey): unknown => fields[key].safeParse(undefined).data;

export const configKeys = Object.freeze(Object.keys(fields)) as readonly ConfigKey[];

/** Keys of what is learnt. */
export const objectiveKeys = Object.freeze(
  Object.keys(objectiveFields),
) as readonly (keyof typeof objectiveFields)[];

/** Keys that kinds of parts of a run declare. */
export const declaredKeys = Object.freeze(
  Object.keys(declaredFields(parametersKinds)),
) as readonly ConfigKey[];

/** Keys whose values are paths, or may be: a leading `~` is the home directory. */
export const pathKeys = [
  "model_name_or_path",
  "adapter_name_or_path",
  "dataset",
  "dataset_dir",
  "eval_dataset",
  "general_dataset",
  "general_eval_dataset",
  "output_dir",
  "resume_from_checkpoint",
  "tls_cert_file",
  "tls_key_file",
  "tls_ca_file",
  "join_token_file",
  "http_token_file",
  "http_tls_cert_file",
  "http_tls_key_file",
  "nats_credentials_file",
  "nats_token_file",
  "nats_tls_ca_file",
  "nats_tls_cert_file",
  "nats_tls_key_file",
  "engine_module",
] as const satisfies readonly ConfigKey[];

/** Keys whose value is shown, saved and logged nowhere. */
export const secretKeys: readonly ConfigKey[] = ["hub_token"];

export function isConfigKey(key: string): key is ConfigKey {
  return Object.hasOwn(fields, key);
}
