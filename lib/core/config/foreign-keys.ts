import type { ConfigKey } from "./fields.js";

/**
 * Keys of transformers.TrainingArguments (v4 and v5) and of neighbouring tools that Lockstep does not
 * own. A key that could change results is never dropped silently.
 */
export type ForeignKey =
  /** An older or a foreign name of one of our keys. */
  | {
      readonly kind: "renamed";
      readonly to: ConfigKey;
      /** The value under the new name; undefined when the value says nothing. */
      readonly convert?: (value: unknown) => unknown;
    }
  /** Cannot change results: accepted, with a warning unless it holds its default. */
  | { readonly kind: "ignored"; readonly default: unknown; readonly reason: string }
  /** Would change results: only the listed values, which do what Lockstep does anyway. */
  | { readonly kind: "fixed"; readonly allowed: readonly unknown[]; readonly reason: string };

const renamed = (to: ConfigKey, convert?: (value: unknown) => unknown): ForeignKey =>
  convert === undefined ? { kind: "renamed", to } : { kind: "renamed", to, convert };
const ignored = (reason: string, defaultValue: unknown = null): ForeignKey => ({
  kind: "ignored",
  default: defaultValue,
  reason,
});
const fixed = (allowed: readonly unknown[], reason: string): ForeignKey => ({
  kind: "fixed",
  allowed,
  reason,
});

const torchOnly = "it steers PyTorch, which Lockstep does not use";
const hub = "Lockstep does not talk to the Hugging Face Hub";
const loader = "there are no loader processes: the coordinator sends token batches with each lease";
const distribution = "Lockstep distributes by gradient groups and reducer shards";
const noWeight = "not implemented in this version";

export const foreignKeys: Readonly<Record<string, ForeignKey>> = Object.freeze({
  // Other names of the same knob.
  sequence_length: renamed("max_length"),
  cutoff_len: renamed("max_length"),
  max_seq_length: renamed("max_length"),
  sequence_len: renamed("max_length"),
  num_epochs: renamed("num_train_epochs"),
  epochs: renamed("num_train_epochs"),
  micro_batch_size: renamed("per_device_train_batch_size"),
  base_model: renamed("model_name_or_path"),
  lr_scheduler: renamed("lr_scheduler_type"),
  val_size: renamed("validation_split"),
  val_set_size: renamed("validation_split"),

  // transformers v4.
  warmup_ratio: renamed("warmup_steps", (ratio) => (ratio === 0 ? undefined : ratio)),
  evaluation_strategy: renamed("eval_strategy"),
  per_gpu_train_batch_size: renamed("per_device_train_batch_size", (v) => v ?? undefined),
  per_gpu_eval_batch_size: renamed("per_device_eval_batch_size", (v) => v ?? undefined),
  no_cuda: renamed("use_cpu"),
  torch_dtype: renamed("bf16", dtypeToBf16),
  dtype: renamed("bf16", dtypeToBf16),
  group_by_length: fixed([false], "blocks are packed, so all rows have one length"),
  save_safetensors: fixed([true], "weights are always written as safetensors"),
  adafactor: fixed([false], "the optimizer is AdamW"),
  overwrite_output_dir: ignored("a checkpoint of the same name is replaced atomically", false),
  logging_dir: ignored("logs go to output_dir/logs"),
  use_mps_device: ignored(torchOnly, false),
  half_precision_backend: ignored(torchOnly, "auto"),
  fp16_backend: ignored(torchOnly, "auto"),
  fp16_opt_level: ignored(torchOnly, "O1"),
  jit_mode_eval: ignored(torchOnly, false),
  tpu_num_cores: ignored(torchOnly),
  tpu_metrics_debug: ignored(torchOnly, false),
  past_index: fixed([-1], "past states are not fed back"),
  torchdynamo: ignored(torchOnly),
  ray_scope: ignored(torchOnly, "last"),
  include_tokens_per_second: ignored("tokens per second are always logged", false),
  include_inputs_for_metrics: ignored("there are no Python metric functions", false),
  push_to_hub_token: ignored(hub),
  push_to_hub_model_id: ignored(hub),
  push_to_hub_organization: ignored(hub),
  fsdp_min_num_params: ignored(distribution, 0),
  fsdp_transformer_layer_cls_to_wrap: ignored(distribution),
  mp_parameters: ignored(distribution, ""),

  // transformers v5: would change results.
  optim_args: fixed([null], noWeight),
  optim_target_modules: fixed([null], noWeight),
  label_smoothing_factor: fixed([0], noWeight),
  neftune_noise_alpha: fixed([null], noWeight),
  average_tokens_across_devices: fixed(
    [true],
    "the loss is always divided by the token count of the whole step",
  ),
  train_sampling_strategy: fixed(["random"], noWeight),
  dataloader_drop_last: fixed([false], "the last, shorter step of an epoch is always made"),
  ignore_data_skip: fixed([false], "a resumed run continues where it stopped"),
  eval_delay: fixed([0], noWeight),
  debug: fixed(["", null], noWeight),
  // bfloat16 evaluation follows bf16; a separate choice would change the logged loss only.
  fp16_full_eval: fixed([false], "evaluation uses the precision of training"),
  bf16_full_eval: ignored("evaluation uses the precision of training", false),
  push_to_hub: fixed([false], hub),
  prediction_loss_only: ignored("the loss is what is evaluated", false),

  // transformers v5: cannot change results.
  tf32: ignored("float32 means float32"),
  activation_checkpointing: ignored("activations are kept; results do not depend on it"),
  activation_checkpointing_kwargs: ignored("activations are kept; results do not depend on it"),
  gradient_checkpointing: ignored("activations are kept; results do not depend on it"),
  gradient_checkpointing_kwargs: ignored("activations are kept; results do not depend on it"),
  torch_compile: ignored("every model is compiled to one graph", false),
  torch_compile_backend: ignored(torchOnly),
  torch_compile_mode: ignored(torchOnly),
  use_liger_kernel: ignored("fused kernels are always used", false),
  liger_kernel_config: ignored("fused kernels are always used"),
  use_cache: ignored("training never caches keys and values", false),
  torch_empty_cache_steps: ignored(torchOnly),
  auto_find_batch_size: ignored("the batch size is the one configured", false),
  log_on_each_node: ignored("the coordinator logs for all workers", true),
  logging_nan_inf_filter: ignored("a loss that is not finite is always shown as it is", true),
  logging_first_step: ignored("every step is shown; the history follows logging_steps", false),
  log_level: ignored("use --verbose", "passive"),
  log_level_replica: ignored("workers log to output_dir/logs", "warning"),
  report_to: ignored("metrics are served for Prometheus", "none"),
  project: ignored("metrics are served for Prometheus", "huggingface"),
  trackio_space_id: ignored("metrics are served for Prometheus"),
  trackio_bucket_id: ignored("metrics are served for Prometheus"),
  trackio_static_space_id: ignored("metrics are served for Prometheus"),
  eval_do_concat_batches: ignored("only sums leave a worker", true),
  eval_use_gather_object: ignored("only sums leave a worker", false),
  eval_accumulation_steps: ignored("only sums leave a worker"),
  include_for_metrics: ignored("there are no Python metric functions", []),
  batch_eval_metrics: ignored("there are no Python metric functions", false),
  save_on_each_node: ignored("the coordinator saves", false),
  enable_jit_checkpoint: ignored("use Ctrl-C or SIGTERM: the step is finished and saved", false),
  hub_token: ignored(hub),
  hub_private_repo: ignored(hub),
  hub_model_id: ignored(hub),
  hub_strategy: ignored(hub, "every_save"),
  hub_always_push: ignored(hub, false),
  hub_revision: ignored(hub),
  restore_callback_states_from_checkpoint: ignored("there are no callbacks", false),
  full_determinism: ignored("runs are always deterministic", false),
  accelerator_config: ignored(distribution),
  parallelism_config: ignored(distribution),
  dataloader_num_workers: ignored(loader, 0),
  dataloader_pin_memory: ignored(loader, true),
  dataloader_persistent_workers: ignored(loader, false),
  dataloader_prefetch_factor: ignored(loader),
  dataloader_multiprocessing_context: ignored(loader),
  dataloader_in_order: ignored(loader, true),
  remove_unused_columns: ignored("only the text of a document is read", true),
  label_names: ignored("targets are the next tokens"),
  length_column_name: ignored("blocks are packed, so all rows have one length", "length"),
  ddp_find_unused_parameters: ignored(distribution),
  ddp_bucket_cap_mb: ignored(distribution),
  ddp_broadcast_buffers: ignored(distribution),
  ddp_static_graph: ignored(distribution),
  ddp_backend: ignored(distribution),
  ddp_timeout: ignored("see heartbeat_timeout_ms and lease_timeout_ms", 1800),
  fsdp: ignored(distribution),
  fsdp_config: ignored(distribution),
  deepspeed: ignored(distribution),
  skip_memory_metrics: ignored("memory is always reported", true),
  do_train: ignored("lockstep train always trains", false),
  do_eval: ignored("use eval_strategy or eval_on_start", false),
  do_predict: ignored("use sample_prompt", false),
  local_rank: ignored(distribution, -1),
});

/** `torch_dtype` names what the model computes in; the masters stay in float32 here. */
function dtypeToBf16(value: unknown): unknown {
  if (value === "bfloat16" || value === "bf16") return true;
  if (value === "float32" || value === "fp32") return false;
  if (value === "auto" || value === null) return undefined;
  return value;
}
