import { fixed, type ForeignKeys, fullOnly, ignored, method } from "./rules.js";

/** Names of peft.LoraConfig, and of the options with which other programs fill it. */
export const peftKeys: ForeignKeys = {
  use_peft: fixed([false, null], `LoRA is not in this version: ${fullOnly}`),
  peft_type: fixed([null], `adapters are not in this version: ${fullOnly}`),
  ...method(
    "QLoRA",
    "bnb_4bit_quant_type bnb_4bit_compute_dtype bnb_4bit_use_double_quant use_bnb_nested_quant",
  ),
  revision: ignored("nothing is downloaded"),
  ...method(
    "LoRA",
    `r target_modules exclude_modules lora_alpha lora_dropout lora_bias fan_in_fan_out use_rslora
    use_dora modules_to_save init_lora_weights layers_to_transform layers_pattern rank_pattern
    alpha_pattern trainable_token_indices loftq_config eva_config corda_config lora_ga_config
    velora_config use_qalora qalora_group_size layer_replication target_parameters use_bdlora
    arrow_config kasa_config monteclora_config alora_invocation_tokens ensure_weight_tying
    bias task_type inference_mode auto_mapping base_model_name_or_path peft_version megatron_config
    megatron_core
    lora_r lora_target_modules lora_modules_to_save lora_task_type`,
  ),
};
