import { answersOnly, each, type ForeignKeys, fixed, ignored, notHere, renamed } from "./rules.js";

const padding = "rows have one length, and padding is in neither loss nor attention";

/** Names that trl.SFTConfig adds to TrainingArguments, and those of its command line. */
export const trlKeys: ForeignKeys = {
  model_init_kwargs: fixed([null, {}], "config.json of the model decides"),
  trust_remote_code: ignored("code beside a model is never run", false),
  router_aux_loss_coef: fixed([null], notHere),
  chat_template_path: fixed([null], "the chat template of the model's own directory is used"),
  dataset_kwargs: fixed([null, {}], notHere),
  dataset_num_proc: ignored("data is prepared in one process"),
  dataset_batch_size: ignored("data is prepared as a stream", 1000),
  eos_token: fixed([null], "the end token of the model's own tokenizer is used"),
  pad_token: ignored("padding is masked by position, never by token id"),
  truncation_mode: fixed(["keep_start"], notHere),
  shuffle_dataset: ignored("every epoch is shuffled by data_seed", false),
  packing_strategy: fixed(
    ["wrapped", "bfd"],
    "texts are laid end to end (wrapped), other examples are packed by best fit (bfd)",
  ),
  padding_free: ignored(padding, false),
  pad_to_multiple_of: ignored(padding, "auto"),
  eval_packing: ignored("validation rows are laid out as those of training"),
  completion_only_loss: fixed([true], answersOnly),
  assistant_only_loss: fixed([true], answersOnly),
  // DPO, ORPO and reward models.
  loss_weights: fixed([null], "the loss is of one loss_type"),
  precompute_ref_log_probs: fixed(
    [false],
    "the reference computes with each batch; of adapters it is the model without them, and takes no memory of its own",
  ),
  precompute_ref_batch_size: ignored("the reference computes with each batch"),
  ...each(
    "ref_model_init_kwargs model_adapter_name ref_adapter_name",
    fixed([null], "the reference is model_name_or_path as it is, without an adapter"),
  ),
  sync_ref_model: fixed([false], "the reference stays as it is"),
  ref_model_mixup_alpha: ignored("the reference stays as it is", 0.6),
  ref_model_sync_steps: ignored("the reference stays as it is", 512),
  reference_free: fixed([false], "objective: orpo has no reference"),
  ld_alpha: fixed([null, 1], notHere),
  rpo_alpha: fixed([null], notHere),
  use_weighting: fixed([false], notHere),
  f_divergence_type: fixed(["reverse_kl"], notHere),
  f_alpha_divergence_coef: ignored("the divergence is reverse_kl", 0.5),
  discopop_tau: ignored("there is no such loss_type", 0.05),
  ...each(
    "max_prompt_length max_completion_length",
    fixed([null], "a prompt and its answer are cut together, at max_length"),
  ),
  is_encoder_decoder: fixed([false, null], "there are no encoder-decoder models"),
  generate_during_eval: fixed([false], "an evaluation writes no answers"),
  label_pad_token_id: ignored("padding is no target", -100),
  padding_value: ignored("padding is masked by position, never by token id"),
  dataset_name: renamed("dataset"),
  dataset_config: fixed([], "write dataset as an entry: [{ path: DIRECTORY, name: SUBSET }]"),
  dataset_train_split: fixed(
    ["train"],
    "write dataset as an entry: [{ path: DIRECTORY, split: NAME }]",
  ),
  dataset_test_split: ignored(
    "eval_dataset validates: a directory by its validation split, else by test",
    "test",
  ),
  dataset_streaming: ignored("files are always read as a stream", false),
  attn_implementation: ignored("fused attention is always used"),
  activation_offloading: ignored("activations stay where they are computed", false),
};
