import { each, fixed, type ForeignKeys, fullOnly, ignored, only4bit, renamed } from "./rules.js";

const plain = "adapters of peft's LoraConfig are LoRA and DoRA here";
const notKept = "A and B begin as init_lora_weights says: true or gaussian";

const unlessEmpty = (value: unknown): unknown =>
  typeof value === "object" && value !== null && Object.keys(value).length === 0
    ? undefined
    : value;

/** Names of peft.LoraConfig, and of the options with which other programs fill it. */
export const peftKeys: ForeignKeys = {
  peft_type: fixed([null, "LORA"], `finetuning_type names what is trained: ${fullOnly}`),
  use_bnb_nested_quant: renamed("bnb_4bit_use_double_quant"),
  bnb_4bit_quant_storage: ignored("two weights of 4 bits are stored in a byte", "uint8"),
  load_in_8bit: fixed([false], only4bit),
  revision: renamed("model_revision"),
  r: renamed("lora_r"),
  target_modules: renamed("lora_target_modules"),
  modules_to_save: renamed("lora_modules_to_save"),
  task_type: ignored("it follows from the data", "CAUSAL_LM"),
  lora_task_type: ignored("it follows from the data", "CAUSAL_LM"),
  fan_in_fan_out: ignored("it follows from the model", false),
  inference_mode: fixed([false], "adapters are trained"),
  base_model_name_or_path: ignored("model_name_or_path is what is trained on"),
  ...each("auto_mapping peft_version", ignored("it is written, not read")),
  megatron_core: ignored("there are no Megatron layers", "megatron.core"),
  qalora_group_size: ignored("there is no QALoRA", 16),
  bias: fixed(["none"], "biases stay as they are"),
  ...each("use_qalora use_bdlora lora_bias", fixed([false], plain)),
  rank_pattern: renamed("lora_rank_pattern", unlessEmpty),
  alpha_pattern: renamed("lora_alpha_pattern", unlessEmpty),
  exclude_modules: renamed("lora_exclude_modules"),
  layers_to_transform: renamed("lora_layers_to_transform"),
  layers_pattern: renamed("lora_layers_pattern"),
  ...each("loftq_config", fixed([{}], notKept)),
  ...each("eva_config corda_config lora_ga_config", fixed([null], notKept)),
  ...each(
    `trainable_token_indices velora_config layer_replication target_parameters arrow_config
    kasa_config monteclora_config alora_invocation_tokens megatron_config`,
    fixed([null], plain),
  ),
};
