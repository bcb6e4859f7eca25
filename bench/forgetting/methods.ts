/** The runs of the demonstration, as plain configurations. */

/** What each run has, whatever it does against forgetting. */
export const common = {
  max_length: 64,
  bf16: true,
  optim: "adamw_torch_fused",
  learning_rate: 2e-4,
  lr_scheduler_type: "constant_with_warmup",
  warmup_steps: 4,
  max_steps: 40,
  per_device_train_batch_size: 8,
  eval_strategy: "steps",
  eval_steps: 10,
  eval_on_start: true,
  per_device_eval_batch_size: 8,
  max_eval_samples: 32,
  logging_steps: 1,
  save_strategy: "no",
  save_dtype: "bfloat16",
  workers: 1,
  use_cpu: true,
} as const;

export interface Method {
  readonly name: string;
  /** For the table. */
  readonly title: string;
  readonly settings: Readonly<Record<string, unknown>>;
}

export const methods: readonly Method[] = [
  { name: "nothing", title: "nothing", settings: {} },
  {
    name: "replay",
    title: "replay, a quarter of the rows",
    settings: { replay_probability: 0.25 },
  },
  { name: "ewc", title: "EWC, lambda 0.1", settings: { ewc_lambda: 0.1, ewc_samples: 64 } },
  {
    name: "unfreezing",
    title: "gradual unfreezing, 6 layers every 6 steps",
    settings: { unfreeze_steps: 6, unfreeze_layers: 6 },
  },
  {
    name: "lora",
    title: "LoRA of rank 8",
    settings: {
      use_peft: true,
      lora_r: 8,
      lora_alpha: 16,
      lora_target_modules: "all-linear",
      learning_rate: 1e-3,
    },
  },
];
