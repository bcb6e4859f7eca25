import { answersOnly, type ForeignKeys, fixed, ignored, notHere, renamed } from "./rules.js";

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
  loss_type: fixed(["nll"], "the loss is the mean negative log-likelihood of a token"),
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
