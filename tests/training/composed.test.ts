import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { mastersOf, runJob } from "#tests/support/job-runs";
import { createTinyJob } from "#tests/support/tiny-job";

// Parts of a run that are tested one by one elsewhere, many of them at once: whatever is combined, one process,
// any number of workers and shards, and a run that goes on from a checkpoint end with the same weights.

const common = { global_batch_size: 8, gradient_groups: 4, max_steps: 6 };
const combinations: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  "float16, Adafactor, smoothed labels, dropout, an average, rates by layer, a rate that follows evaluations":
    {
      ...{ fp16: true, optim: "adafactor", optim_args: { scale_parameter: true, beta1: 0.9 } },
      ...{ label_smoothing_factor: 0.1, dropout: { attention: 0.2 }, ema_decay: 0.8 },
      ...{ layerwise_lr_decay: 0.9, gradient_checkpointing: true },
      ...{ lr_scheduler_type: "reduce_lr_on_plateau", eval_strategy: "steps", eval_steps: 1 },
      lr_scheduler_kwargs: { patience: 0, threshold: 0.5 },
    },
  "bfloat16, adapters with dropout and rates of their own, 8-bit AdamW, an average": {
    ...{ bf16: true, optim: "adamw_8bit", weight_decay: 0.1, ema_decay: 0.5 },
    ...{ finetuning_type: "lora", lora_target_modules: "all-linear", lora_r: 64 },
    ...{ lora_dropout: 0.3, loraplus_lr_ratio: 4, lr_scheduler_type: "slanted_triangular" },
  },
  "float32, the last layer, Lion, an embedding's rate, clipping": {
    ...{ bf16: false, optim: "lion_32bit", learning_rate: 1e-4, max_grad_norm: 0.1 },
    ...{ finetuning_type: "freeze", freeze_trainable_layers: 1 },
    ...{ freeze_extra_modules: "embed_tokens", embedding_lr: 1e-5, weight_decay: 0.1 },
  },
};

for (const [name, settings] of Object.entries(combinations)) {
  test(`the same weights whoever computes: ${name}`, async (t) => {
    const job = await createTinyJob({ ...common, ...settings });
    t.after(job.remove);
    const digest = mastersOf(await runJob(job, "train-local", "local"));
    const saves = ["--save-strategy", "steps", "--save-steps", "3"];
    for (const [into, args] of [
      ["two", ["--workers", "2", "--reducer-shards", "3", ...saves]],
      [
        "resumed",
        [
          ...["--workers", "1", "--reducer-shards", "1", ...saves],
          ...["--resume-from-checkpoint", join(job.directory, "two", "checkpoint-3")],
        ],
      ],
    ] as const) {
      assert.equal(mastersOf(await runJob(job, "train", into, args)), digest, into);
    }
  });
}
