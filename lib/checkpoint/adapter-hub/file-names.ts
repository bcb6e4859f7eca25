/** Names of files of AdapterHub's adapters (1.3), in the form without pickles. */
export const configFileName = "adapter_config.json";
export const weightsFileName = "adapter.safetensors";
export const headConfigFileName = "head_config.json";
export const headWeightsFileName = "model_head.safetensors";
export const pickleFileName = "pytorch_adapter.bin";
