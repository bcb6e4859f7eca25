import { dashboards, each, type ForeignKeys, fixed, ignored, notHere, renamed } from "./rules.js";

const torchOnly = "it steers PyTorch, which Lockstep does not use";
const loader = "there are no loader processes: the coordinator sends token batches with each lease";
const distribution = "Lockstep distributes by gradient groups and reducer shards";

/** Names of transformers.TrainingArguments, v4 and v5, that are not keys of ours. */
export const transformersKeys: ForeignKeys = {
  // transformers v4.
  warmup_ratio: renamed("warmup_steps", (ratio) => (ratio === 0 ? undefined : ratio), 0),
  evaluation_strategy: renamed("eval_strategy"),
  per_gpu_train_batch_size: renamed("per_device_train_batch_size"),
  per_gpu_eval_batch_size: renamed("per_device_eval_batch_size"),
  no_cuda: renamed("use_cpu"),
  torch_dtype: renamed("bf16", dtypeToBf16),
  dtype: renamed("bf16", dtypeToBf16),
  group_by_length: renamed("train_sampling_strategy", (on) =>
    on === false ? undefined : on === true ? "group_by_length" : on,
  ),
  save_safetensors: fixed([true], "weights are always written as safetensors"),
  adafactor: renamed("optim", (on) => (on === false ? undefined : on === true ? "adafactor" : on)),
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
  push_to_hub_token: renamed("hub_token"),
  ...each(
    "push_to_hub_model_id push_to_hub_organization",
    fixed([null], "write hub_model_id: ORGANISATION/NAME"),
  ),
  fsdp_min_num_params: ignored(distribution, 0),
  fsdp_transformer_layer_cls_to_wrap: ignored(distribution),
  mp_parameters: ignored(distribution, ""),

  // Its example scripts.
  train_file: renamed("dataset"),
  validation_file: renamed("eval_dataset"),
  block_size: renamed("max_length"),
  validation_split_percentage: renamed("validation_split", (percent) =>
    typeof percent === "number" ? percent / 100 : percent,
  ),
  tokenizer_name: fixed([], "the tokenizer of the model's own directory is used"),
  config_name: fixed([], "config.json of the model decides"),
  dataset_config_name: fixed([], "write dataset as an entry: [{ path: DIRECTORY, name: SUBSET }]"),

  // transformers v5: would change results.
  optim_target_modules: fixed([null], notHere),
  neftune_noise_alpha: fixed([null], notHere),
  average_tokens_across_devices: fixed(
    [true],
    "the loss is always divided by the token count of the whole step",
  ),
  dataloader_drop_last: fixed([false], "the last, shorter step of an epoch is always made"),
  ignore_data_skip: fixed([false], "a resumed run continues where it stopped"),
  debug: fixed(["", null], notHere),
  // Evaluation in a half type follows bf16 and fp16; a separate choice would change the logged loss only.
  fp16_full_eval: ignored("evaluation uses the precision of training", false),
  bf16_full_eval: ignored("evaluation uses the precision of training", false),
  prediction_loss_only: ignored("the loss is what is evaluated", false),

  // transformers v5: cannot change results.
  tf32: ignored("float32 means float32"),
  activation_checkpointing: renamed("gradient_checkpointing"),
  activation_checkpointing_kwargs: ignored(torchOnly),
  gradient_checkpointing_kwargs: ignored(torchOnly),
  torch_compile: ignored("every model is compiled to one graph", false),
  torch_compile_backend: ignored(torchOnly),
  torch_compile_mode: ignored(torchOnly),
  use_liger_kernel: ignored("fused kernels are always used", false),
  liger_kernel_config: ignored("fused kernels are always used"),
  use_cache: ignored("training never caches keys and values", false),
  torch_empty_cache_steps: ignored(torchOnly),
  auto_find_batch_size: ignored(
    "the batch size is the one configured, and the memory that it needs is told",
    false,
  ),
  log_on_each_node: ignored("the coordinator logs for all workers", true),
  logging_nan_inf_filter: ignored("a loss that is not finite is always shown as it is", true),
  log_level: ignored("use --verbose", "passive"),
  log_level_replica: ignored("workers log to output_dir/logs", "warning"),
  report_to: ignored(dashboards, "none"),
  project: ignored(dashboards, "huggingface"),
  trackio_space_id: ignored(dashboards),
  trackio_bucket_id: ignored(dashboards),
  trackio_static_space_id: ignored(dashboards),
  eval_do_concat_batches: ignored("only sums leave a worker", true),
  eval_use_gather_object: ignored("only sums leave a worker", false),
  eval_accumulation_steps: ignored("only sums leave a worker"),
  include_for_metrics: ignored("there are no Python metric functions", []),
  batch_eval_metrics: ignored("there are no Python metric functions", false),
  save_on_each_node: ignored("the coordinator saves", false),
  enable_jit_checkpoint: ignored("use Ctrl-C or SIGTERM: the step is finished and saved", false),
  hub_always_push: ignored("the result is pushed once, at the end", false),
  hub_revision: fixed([null, "main"], "the result is pushed to the branch main"),
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
  length_column_name: ignored("lengths are counted in tokens", "length"),
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
  do_train: fixed(
    [true],
    "a run always trains; eval_on_start: true with learning_rate: 0 and max_steps: 1 evaluates a model as it is",
  ),
  do_eval: renamed("eval_on_end", (on) => (on === false ? undefined : on)),
  do_predict: fixed(
    [false],
    "a run predicts nothing; lockstep classify and lockstep generate do, with the model that it saves",
  ),
  local_rank: ignored(distribution, -1),
};

/** `torch_dtype` names what the model computes in; the masters stay in float32 here. */
function dtypeToBf16(value: unknown): unknown {
  if (value === "bfloat16" || value === "bf16") return true;
  if (value === "float32" || value === "fp32") return false;
  if (value === "auto" || value === null) return undefined;
  return value;
}
