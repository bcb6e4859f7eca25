import { optimizerNames } from "#lib/optim/optimizers/index";
import {
  answersOnly,
  dashboards,
  each,
  type ForeignKey,
  type ForeignKeys,
  fixed,
  fullOnly,
  ignored,
  joint,
  notHere,
  only4bit,
  renamed,
  reworded,
} from "./rules.js";

const attention = "fused attention is always used";
const kernels = "fused kernels are always used";
const oneProgram = "it steers a program that Lockstep does not use";
const perEpoch = (what: string): ForeignKey =>
  joint(`read as \`${what}_strategy: steps\` and the share of the run as \`${what}_steps\``);

const liger = "axolotl.integrations.liger.LigerPlugin";
const cutLoss = "axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin";

/** Modules that "all-linear" does not mean. */
const notLinear = ["embed_tokens", "lm_head", "wte", "wpe"];
const linearAndMore = (before: unknown, converted: unknown): unknown =>
  converted === "all-linear" &&
  Array.isArray(before) &&
  !before.some((name) => notLinear.includes(String(name)))
    ? converted
    : undefined;

/** Keys of axolotl's YAML files, and names of torchtune, unsloth and Ludwig for the same knobs. */
export const axolotlKeys: ForeignKeys = {
  sequence_length: renamed("max_length"),
  max_seq_length: renamed("max_length"),
  sequence_len: renamed("max_length"),
  num_epochs: renamed("num_train_epochs"),
  epochs: renamed("num_train_epochs"),
  n_epochs: renamed("num_train_epochs"),
  micro_batch_size: renamed("per_device_train_batch_size"),
  eval_batch_size: renamed("per_device_eval_batch_size"),
  base_model: renamed("model_name_or_path"),
  lr: renamed("learning_rate"),
  noisy_embedding_alpha: renamed("neftune_noise_alpha"),
  lr_scheduler: renamed("lr_scheduler_type"),
  optimizer: reworded(
    "optim",
    Object.fromEntries(optimizerNames.map((name) => [name, name])),
    "there are no other optimizers; write optimizer: adamw_torch_fused",
  ),
  val_set_size: renamed("validation_split"),
  num_warmup_steps: renamed("warmup_steps"),
  warmup_fraction: renamed("warmup_steps"),
  auto_resume_from_checkpoints: renamed("resume_from_checkpoint", (value) =>
    value === true ? "auto" : value || undefined,
  ),
  adapter: reworded(
    "use_peft",
    { lora: true, qlora: true, "": undefined },
    `of adapters there are LoRA's: ${fullOnly}`,
  ),
  ...each("gptq gptq_model_v1", fixed([false], only4bit)),
  gptq_groupsize: ignored("there are no weights of GPTQ"),
  push_dataset_to_hub: fixed([null], "data sets are not pushed"),
  torchdistx_path: ignored(oneProgram),
  bnb_config_kwargs: fixed([null, {}], "write bnb_4bit_quant_type and bnb_4bit_use_double_quant"),
  lora_model_dir: renamed("adapter_name_or_path", (value) => value || undefined),
  lora_target_linear: {
    ...renamed("lora_target_modules", (on) =>
      on === false ? undefined : on === true ? "all-linear" : on,
    ),
    merge: linearAndMore,
  } as ForeignKey,
  lora_fan_in_fan_out: ignored("it follows from the model", false),
  peft_use_dora: renamed("use_dora"),
  peft_use_rslora: renamed("use_rslora"),
  ...each(
    "lora_on_cpu lora_mlp_kernel lora_qkv_kernel lora_o_kernel peft_autocast_adapter_dtype",
    ignored(kernels, false),
  ),
  peft_layers_to_transform: renamed("lora_layers_to_transform"),
  peft_layers_pattern: renamed("lora_layers_pattern"),
  peft_init_lora_weights: renamed("init_lora_weights"),
  datasets: renamed("dataset"),
  test_datasets: renamed("eval_dataset"),
  pretraining_dataset: fixed([null], "write datasets, with type: completion"),
  shuffle_merged_datasets: fixed([true], "every epoch is shuffled by data_seed"),
  dataset_exact_deduplication: fixed([false], notHere),
  skip_prepare_dataset: fixed([false], "data is always prepared from its source"),
  default_system_message: fixed([null], notHere),
  excess_length_strategy: fixed(["truncate"], "longer rows are cut at their end"),
  tokens: fixed([null], "the vocabulary keeps its size"),
  added_tokens_overrides: fixed([null], "the vocabulary keeps its size"),
  resize_token_embeddings_to_32x: fixed([false], "the vocabulary keeps its size"),
  chat_template_jinja: fixed(
    [null],
    "put the template into chat_template.jinja in the model's directory",
  ),
  eot_tokens: fixed([null], "the token that ends an answer in the chat template is learnt"),
  sample_packing: renamed("packing"),
  eval_sample_packing: ignored("validation rows are laid out as those of training"),
  pad_to_sequence_len: ignored("rows have one length, max_length"),
  train_on_inputs: fixed([false], answersOnly),
  evals_per_epoch: perEpoch("eval"),
  saves_per_epoch: perEpoch("save"),
  loss_watchdog_threshold: ignored("a loss that grows does not end a run"),
  loss_watchdog_patience: ignored("a loss that grows does not end a run"),
  cosine_min_lr_ratio: fixed(
    [null],
    "write lr_scheduler_type: cosine_with_min_lr and lr_scheduler_kwargs: {min_lr_rate: ...}",
  ),
  ...each("cosine_constant_lr_ratio relora relora_steps", fixed([null], notHere)),
  curriculum_sampling: renamed("train_sampling_strategy", (on) =>
    on === false ? undefined : on === true ? "sequential" : on,
  ),
  unfrozen_parameters: fixed([null], fullOnly),
  rl: joint("`dpo`, `ipo` and `orpo` are read as `objective` and `loss_type`"),
  reward_model: {
    ...renamed("objective", (on) => (on === true ? "reward" : undefined)),
    only: {
      values: [true, false],
      reason: "a run trains a reward model or none, and asks no other",
    },
  } as ForeignKey,
  rl_beta: renamed("beta"),
  orpo_alpha: renamed("beta"),
  dpo_use_weighting: fixed([false], notHere),
  dpo_norm_loss: fixed([false], notHere),
  dpo_use_liger_kernel: ignored(kernels, false),
  dpo_padding_free: ignored("padding is in neither loss nor attention", false),
  dpo_use_logits_to_keep: ignored("the logits of all rows never exist at once", false),
  dpo_generate_during_eval: fixed([false], "an evaluation writes no answers"),
  model_type: ignored("config.json of the model decides"),
  tokenizer_type: ignored("tokenizer.json is used"),
  is_llama_derived_model: ignored("config.json of the model decides"),
  strict: ignored("unknown keys are always refused"),
  dataset_prepared_path: ignored("prepared data is not cached"),
  dataset_processes: ignored("data is prepared in one process"),
  dataset_keep_in_memory: ignored("data is prepared as a stream", false),
  shuffle_before_merging_datasets: ignored("every epoch is shuffled by data_seed", false),
  ...each("flash_attention xformers_attention sdp_attention", ignored(attention, false)),
  ...each("flex_attention eager_attention", ignored(attention, false)),
  ...each(
    `flash_attn_cross_entropy flash_attn_rms_norm flash_attn_fuse_mlp flash_attn_fuse_qkv liger_rope liger_rms_norm
    liger_glu_activation liger_layer_norm liger_fused_linear_cross_entropy cut_cross_entropy
    liger_cross_entropy unsloth_cross_entropy_loss unsloth_lora_mlp unsloth_lora_qkv unsloth_lora_o`,
    ignored(kernels, false),
  ),
  ...each(
    `sample_packing_group_size sample_packing_bin_size sample_packing_sequentially
    multipack_real_batches`,
    ignored("examples are packed by best fit"),
  ),
  ...each("gpu_memory_limit max_memory device_map gc_steps", ignored(oneProgram)),
  ...each("eval_table_size eval_max_new_tokens", ignored("an evaluation writes no answers")),
  ...each("do_causal_lm_eval do_bench_eval", fixed([false], "the loss is what is evaluated")),
  ...each("tokenizer_config base_model_config", fixed([null], "the model's own directory is used")),
  ...each("tokenizer_use_fast tokenizer_legacy", ignored("tokenizer.json is used")),
  overrides_of_model_config: fixed([null], "config.json of the model decides"),
  save_first_step: fixed([false], "write save_steps"),
  s2_attention: fixed([false], notHere),
  ...each(
    "wandb_project wandb_entity wandb_watch wandb_name wandb_run_id wandb_log_model wandb_mode wandb_tags",
    ignored(dashboards),
  ),
  ...each("use_wandb use_mlflow use_comet use_tensorboard", ignored(dashboards, false)),
  ...each(
    "mlflow_tracking_uri mlflow_experiment_name mlflow_run_name comet_project_name",
    ignored(dashboards),
  ),
  hf_use_auth_token: ignored("a token is used where there is one: HF_TOKEN or `hf auth login`"),
  revision_of_model: renamed("model_revision"),
  plugins: fixed(
    [null, [], [liger], [cutLoss], [liger, cutLoss], [cutLoss, liger]],
    "only those that make kernels faster are known, and fused kernels are always used",
  ),
};
