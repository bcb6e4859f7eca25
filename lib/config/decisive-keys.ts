import { basename, resolve } from "node:path";
import { isGreaterBetter } from "#lib/objectives/metrics";
import { parametersKindOf, parametersKinds, partFields } from "#lib/parameters/index";
import {
  type ConfigKey,
  declaredKeys,
  defaultOf,
  objectiveKeys,
  optimizerFields,
} from "./fields.js";
import { decisiveEwcSettings } from "./general-fields.js";
import { followsMetric } from "./schedule-names.js";
import { decisiveOptimizerSettings } from "./optimizer.js";
import type { ResolvedConfig } from "./resolve.js";
import { maxShardBytes } from "./steps.js";

const taskKeys = [
  "tasks",
  "task_weighting",
  "replay_probability",
  "replay_weight",
] as const satisfies readonly ConfigKey[];

// Each key is in one of the three lists, or tests/laws/decisive-keys.test.ts fails.

/** Keys that change the weights a run ends with: another value makes it another run. */
export const decisiveKeys: readonly ConfigKey[] = [
  "per_device_train_batch_size",
  "train_sampling_strategy",
  ...objectiveKeys,
  "learning_rate",
  "lr_scheduler_type",
  "lr_scheduler_kwargs",
  "warmup_steps",
  ...(Object.keys(partFields) as (keyof typeof partFields)[]),
  "weight_decay",
  "optim",
  "optim_args",
  ...(Object.keys(optimizerFields) as (keyof typeof optimizerFields)[]),
  "neftune_noise_alpha",
  "ema_decay",
  "max_grad_norm",
  "ewc_lambda",
  "ewc_samples",
  "ewc_normalize",
  "bf16",
  "fp16",
  "xla",
  "finetuning_type",
  ...declaredKeys.filter((key) => key !== "adapter_name_or_path"),
  ...taskKeys,
  "metric_for_best_model",
  "greater_is_better",
  "seed",
  "data_seed",
  "global_batch_size",
  "gradient_groups",
  "threads_per_worker",
  "wire_dtype",
] satisfies readonly ConfigKey[];

/**
 * Keys that decide through the rows that come of them: the same rows from elsewhere are the same run, and
 * where rows differ these explain why.
 */
export const dataKeys = [
  "dataset",
  "dataset_dir",
  "dataset_format",
  "objective",
  "dataset_text_field",
  "columns",
  "chat_template",
  "chat_template_date",
  "eval_dataset",
  "general_dataset",
  "general_eval_dataset",
  "validation_split",
  "on_bad_row",
  "packing",
  "max_length",
  "max_samples",
  "max_train_samples",
  "max_eval_samples",
] as const satisfies readonly ConfigKey[];

/** Keys that may change when a run goes on: its length, what it tells and saves, where things are, who computes. */
export const freeKeys = [
  // The content of the weights is compared instead.
  "model_name_or_path",
  "model_revision",
  "adapter_name_or_path",
  "special_tokens",
  // The rates that come of it and of the model are compared instead.
  "dropout",
  "disable_dropout",
  "num_train_epochs",
  "max_steps",
  "per_device_eval_batch_size",
  // global_batch_size has its effect.
  "gradient_accumulation_steps",
  // Changes no bit.
  "gradient_checkpointing",
  // The kind of device is compared instead.
  "use_cpu",
  "engine_module",
  "output_dir",
  "overwrite_output_dir",
  "run_name",
  "logging_strategy",
  "logging_steps",
  "logging_first_step",
  "disable_tqdm",
  "eval_strategy",
  "eval_steps",
  "eval_delay",
  "eval_on_start",
  "eval_on_end",
  "include_num_input_tokens_seen",
  "save_strategy",
  "save_steps",
  "save_total_limit",
  "save_only_model",
  "save_retry_ms",
  "checkpoint_store",
  "s3_endpoint",
  "s3_region",
  "user_signal",
  "load_best_model_at_end",
  // The length of a run, as max_steps.
  "early_stopping_patience",
  "early_stopping_threshold",
  "resume_from_checkpoint",
  "push_to_hub",
  "hub_model_id",
  "hub_strategy",
  "hub_private_repo",
  "hub_token",
  "sample_prompt",
  "sample_max_new_tokens",
  "save_dtype",
  "max_shard_size",
  "workers",
  "min_workers",
  "max_workers",
  "reducer_shards",
  "reducers",
  "reducer_processes",
  "reducer_timeout_ms",
  "standby",
  "reducer_replicas",
  "reducer_compare_steps",
  "listen",
  "advertise_host",
  "metrics_host",
  "metrics_port",
  "insecure",
  "tls_cert_file",
  "tls_key_file",
  "tls_ca_file",
  "join_token_file",
  "http_token_file",
  "http_tls_cert_file",
  "http_tls_key_file",
  "http_without_tls",
  "nats_url",
  "nats_credentials_file",
  "nats_token_file",
  "nats_tls_ca_file",
  "nats_tls_cert_file",
  "nats_tls_key_file",
  "nats_lease",
  "nats_events_max_age_days",
  "nats_events_max_gb",
  "heartbeat_interval_ms",
  "heartbeat_timeout_ms",
  "lease_timeout_ms",
  "verify_groups",
  "fingerprint_steps",
  "max_worker_restarts",
  "max_rollbacks",
  "deterministic",
] as const satisfies readonly ConfigKey[];

/** Keys that checkpoints may be older than. */
const laterKeys: readonly ConfigKey[] = [
  ...objectiveKeys,
  ...taskKeys,
  "use_dora",
  "init_lora_weights",
  "neftune_noise_alpha",
  "unfreeze_steps",
  "unfreeze_epochs",
  "unfreeze_layers",
];

/** The decisive keys with their values, in words that mean the same where two spellings do. */
export function decisiveSettings(config: ResolvedConfig): Readonly<Record<string, unknown>> {
  const metric = config.metric_for_best_model?.replace(/^eval_/, "") ?? "loss";
  return {
    ...pick(config, decisiveKeys),
    ...Object.fromEntries(
      // As in a checkpoint that was written before there was the key.
      laterKeys.map((key) => [key, config[key] === defaultOf(key) ? null : config[key]]),
    ),
    ...decisiveOptimizerSettings(config),
    ...decisiveEwcSettings(config),
    max_grad_norm: config.max_grad_norm ?? 0,
    neftune_noise_alpha: config.neftune_noise_alpha === 0 ? null : config.neftune_noise_alpha,
    metric_for_best_model: metric,
    greater_is_better: config.greater_is_better ?? isGreaterBetter(metric),
    ...(followsMetric(config) ? evaluationSettings(config) : {}),
    ...choiceSettings(config),
  };
}

/** Which evaluations there are, and how they are summed: it decides where the rate follows them. */
function evaluationSettings(config: ResolvedConfig): Readonly<Record<string, unknown>> {
  const { eval_strategy, eval_steps, eval_delay, per_device_eval_batch_size } = config;
  return {
    ...{ eval_strategy, eval_delay, per_device_eval_batch_size },
    eval_steps: eval_strategy === "steps" ? eval_steps : null,
  };
}

/** What is trained, by one of its two names; what another choice would be like has no effect. */
function choiceSettings(config: ResolvedConfig): Readonly<Record<string, unknown>> {
  const chosen = parametersKindOf(config);
  const others = parametersKinds
    .filter(({ name }) => name !== chosen.name)
    .flatMap(({ fields }) => Object.keys(fields))
    .filter((key) => key !== "use_peft");
  const isSaidByUsePeft = chosen.name === "lora" || chosen.name === "full";
  return {
    ...Object.fromEntries(others.map((key) => [key, null])),
    finetuning_type: isSaidByUsePeft ? null : chosen.name,
  };
}

/**
 * What the files of a result are made by, beside the weights that the run ends with, and where they were
 * pushed to: a finished run that is asked for another result has something left to do.
 */
export function resultSettings(config: ResolvedConfig): Readonly<Record<string, unknown>> {
  return {
    ...pick(config, ["load_best_model_at_end", "save_dtype"]),
    max_shard_size: maxShardBytes(config),
    // Where nothing is pushed, it does not matter what was.
    ...(config.push_to_hub
      ? { push_to_hub: config.hub_model_id ?? basename(resolve(config.output_dir)) }
      : {}),
  };
}

export const dataSettings = (config: ResolvedConfig): Readonly<Record<string, unknown>> =>
  pick(config, dataKeys);

const pick = (
  config: ResolvedConfig,
  keys: readonly (keyof ResolvedConfig)[],
): Readonly<Record<string, unknown>> => Object.fromEntries(keys.map((key) => [key, config[key]]));
