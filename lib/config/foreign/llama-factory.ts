import {
  answersOnly,
  dashboards,
  each,
  type ForeignKey,
  type ForeignKeys,
  fixed,
  ignored,
  joint,
  method,
  notHere,
  only4bit,
  otherHub,
  renamed,
  renamedUnlike,
} from "./rules.js";

const textOnly = "Lockstep trains on text";
const oneProgram = "it steers a program that Lockstep does not use";
const checkpointing = "activations are kept, unless gradient_checkpointing is true";
const textModels = "models here have no other modality than text";

/**
 * Keys of LLaMA-Factory's YAML files that are neither ours nor of transformers: its model, data,
 * fine-tuning and generation arguments.
 */
export const llamaFactoryKeys: ForeignKeys = {
  // Method.
  neft_alpha: renamed("neftune_noise_alpha"),
  stage: joint(
    "`sft` and `pt`: what a row teaches follows from its format; `dpo` is read as `objective: dpo`, or `orpo` by `pref_loss`, `rm` as `objective: reward` with `disable_dropout: false`",
  ),
  pref_loss: joint(
    "of `stage: dpo`: `sigmoid`, `ipo` and `hinge` are read as `loss_type`, `orpo` as `objective: orpo` with `orpo_nll_tokens: answer`",
  ),
  pref_beta: renamed("beta"),
  dpo_label_smoothing: renamed("label_smoothing"),
  pref_ftx: fixed(
    [0],
    "beside DPO nothing is learnt of the chosen answers alone; orpo learns them",
  ),
  pref_bco_weight: fixed([0], notHere),
  simpo_gamma: ignored("there is no SimPO", 0.5),
  ...each(
    "ref_model ref_model_adapters ref_model_quantization_bit",
    fixed([null], "the reference is model_name_or_path as it is, without an adapter"),
  ),
  lora_rank: renamed("lora_r"),
  lora_target: renamed("lora_target_modules", (v) => (v === "all" ? "all-linear" : v)),
  additional_target: renamed("lora_modules_to_save"),
  loraplus_lr_embedding: ignored("embedding tables have no adapters", 1e-6),
  ...each("pissa_init pissa_convert", fixed([false], "B begins with zeros")),
  pissa_iter: ignored("B begins with zeros", 16),
  create_new_adapter: fixed(
    [false],
    "merge the adapter first (lockstep merge-adapter), and train a new one on that model",
  ),
  adapter_folder: fixed([null], "write the whole path as adapter_name_or_path"),
  ...method("freezing", "freeze_trainable_layers freeze_trainable_modules freeze_extra_modules"),
  use_llama_pro: fixed([false], "the model keeps its layers (LLaMA Pro adds some)"),
  ...method("OFT", "oft_rank oft_block_size oft_target module_dropout"),
  quantization_bit: {
    ...renamed("load_in_4bit", () => true),
    only: { values: [4], reason: only4bit },
  } as ForeignKey,
  quantization_method: fixed(["bnb", "bitsandbytes"], only4bit),
  quantization_type: renamed("bnb_4bit_quant_type"),
  double_quantization: renamed("bnb_4bit_use_double_quant"),
  quantization_device_map: ignored("every worker holds all frozen weights"),
  pure_bf16: fixed([false], "master weights stay in float32; write bf16: true"),
  fp8: fixed([false], notHere),
  fp8_backend: ignored("there is no FP8", "auto"),
  fp8_enable_fsdp_float8_all_gather: ignored("there is no FP8", false),
  ...each(
    `use_galore use_apollo use_badam use_adam_mini use_muon`,
    fixed([false], "optim names the optimizer"),
  ),
  ...each("use_dft_loss", fixed([false], "the loss is the mean negative log-likelihood")),
  disable_shuffling: renamed("train_sampling_strategy", (on) =>
    on === false ? undefined : on === true ? "sequential" : on,
  ),
  early_stopping_steps: renamed("early_stopping_patience"),
  compute_accuracy: ignored("the loss is what is evaluated", false),
  plot_loss: ignored("the dashboard plots, and trainer_state.json keeps the history", false),
  include_effective_tokens_per_second: ignored("tokens per second are always logged", false),
  freeze_vision_tower: ignored(textModels, true),
  freeze_multi_modal_projector: ignored(textModels, true),
  freeze_language_model: fixed([false], textModels),
  use_mca: ignored(oneProgram, false),

  // Model.
  cache_dir: ignored("models of the hub are kept where HF_HUB_CACHE or HF_HOME says"),
  use_fast_tokenizer: ignored("tokenizer.json is used", true),
  resize_vocab: fixed([false], "the vocabulary keeps its size"),
  split_special_tokens: fixed([false], notHere),
  add_tokens: fixed([null], "the vocabulary keeps its size"),
  add_special_tokens: fixed([null], "the vocabulary keeps its size"),
  new_special_tokens_config: fixed([null], "the vocabulary keeps its size"),
  init_special_tokens: ignored("the vocabulary keeps its size", "noise_init"),
  low_cpu_mem_usage: ignored("weights are always read as a stream", true),
  rope_scaling: fixed([null], "config.json of the model decides; change rope_parameters there"),
  flash_attn: ignored("fused attention is always used", "auto"),
  shift_attn: fixed([false], notHere),
  mixture_of_depths: fixed([null], notHere),
  use_unsloth: ignored("fused kernels are always used", false),
  use_unsloth_gc: ignored(checkpointing, false),
  enable_liger_kernel: ignored("fused kernels are always used", false),
  use_v1_kernels: ignored("fused kernels are always used", false),
  moe_aux_loss_coef: fixed([null], "there are no mixture-of-experts models"),
  disable_gradient_checkpointing: ignored(checkpointing, false),
  use_reentrant_gc: ignored(checkpointing, true),
  upcast_layernorm: ignored("norms are always computed in float32", false),
  upcast_lmhead_output: ignored("the loss is always computed in float32", false),
  train_from_scratch: fixed([false], "training starts from the weights of model_name_or_path"),
  print_param_status: ignored("all weights are trained", false),
  hf_hub_token: renamed("hub_token"),
  ...each("ms_hub_token om_hub_token", ignored(otherHub)),
  ...each("infer_backend infer_dtype offload_folder", ignored("they steer inference only")),
  use_kv_cache: ignored("it steers inference only", true),

  // Data.
  cutoff_len: renamedUnlike(
    "max_length",
    "a longer example is cut at its end, where LLaMA-Factory divides the length between prompts and answers; a prompt that fills it makes a bad row",
  ),
  val_size: renamed("validation_split"),
  template: ignored(
    "the chat template of the model's own directory is used; chat_template: NAME checks that it has that format",
  ),
  tool_format: fixed([null], notHere),
  default_system: fixed([null], notHere),
  enable_thinking: fixed([true, null], notHere),
  media_dir: ignored(textOnly),
  train_on_prompt: fixed([false], answersOnly),
  mask_history: fixed([false], notHere),
  streaming: ignored("files are always read as a stream", false),
  buffer_size: ignored("every epoch is shuffled as a whole", 16384),
  mix_strategy: fixed(
    ["concat"],
    "data sets are mixed as one; tasks.NAME.share mixes those of several tasks by their shares",
  ),
  interleave_probs: fixed([null], "tasks.NAME.share has the shares of tasks"),
  overwrite_cache: ignored("prepared data is not cached", false),
  preprocessing_batch_size: ignored("data is prepared as a stream", 1000),
  preprocessing_num_workers: ignored("data is prepared in one process"),
  eval_num_beams: ignored("the loss is what is evaluated"),
  ignore_pad_token_for_loss: fixed([true], "padding is never in the loss"),
  eval_on_each_dataset: fixed([false], notHere),
  neat_packing: renamed("packing", (v) => (v === false ? undefined : v), true),
  tokenized_path: fixed([null], "data is always prepared from its source"),
  ...each(
    `image_max_pixels image_min_pixels image_do_pan_and_scan crop_to_patches video_max_pixels
    video_min_pixels video_fps video_maxlen use_audio_in_video audio_sampling_rate`,
    ignored(textOnly),
  ),

  // Seq2SeqTrainingArguments and generation.
  predict_with_generate: fixed([false], "the loss is what is evaluated; see sample_prompt"),
  sortish_sampler: fixed([false], notHere),
  ...each(
    "generation_max_length generation_num_beams generation_config",
    ignored("see sample_prompt"),
  ),
  ...each(
    `do_sample temperature top_p top_k num_beams repetition_penalty length_penalty
    skip_special_tokens`,
    ignored("the sample before and after training is greedy"),
  ),
  max_new_tokens: renamed("sample_max_new_tokens"),

  // Trackers and clusters.
  use_swanlab: ignored(dashboards, false),
  ...each(
    `swanlab_project swanlab_workspace swanlab_run_name swanlab_mode swanlab_api_key swanlab_logdir
    swanlab_lark_webhook_url swanlab_lark_secret`,
    ignored(dashboards),
  ),
  ...each(
    `ray_run_name ray_storage_path ray_storage_filesystem ray_num_workers resources_per_worker
    placement_strategy ray_init_kwargs`,
    ignored("workers are Lockstep's own"),
  ),
};
