import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import {
  configKeys,
  evaluationDelaySteps,
  intervalSteps,
  loadConfig,
  parseFlags,
  printConfig,
  resolveSteps,
} from "#lib/config/index";
import { foreignKeys } from "#lib/config/foreign-keys";
import { isSwitchKey, isTextKey, type Resolution, resolveConfig } from "#lib/config/resolve";
import { parseConfigText } from "#lib/config/yaml-file";
import { editDistance, nearestName } from "#lib/core/edit-distance";
import { isLockstepError } from "#lib/core/errors/index";

const base = "model_name_or_path: m\ndataset: sotu\n";

function resolve(yaml: string, ...args: string[]): Resolution {
  const flags = parseFlags(args, isSwitchKey, isTextKey);
  assert.deepEqual(flags.positionals, []);
  return resolveConfig(parseConfigText(base + yaml, "job.yaml"), flags.values, { cpuCount: 8 });
}

function failure(yaml: string, ...args: string[]): { code: string; message: string } {
  try {
    resolve(yaml, ...args);
  } catch (error) {
    if (isLockstepError(error)) return { code: error.code, message: error.message };
    throw error;
  }
  assert.fail("no error");
}

// Names and defaults of transformers.TrainingArguments 5.24.0, `None` and `-1` included.
const transformersDefaults: Record<string, unknown> = {
  num_train_epochs: 3,
  max_steps: -1,
  per_device_train_batch_size: 8,
  per_device_eval_batch_size: 8,
  gradient_accumulation_steps: 1,
  learning_rate: 5e-5,
  lr_scheduler_type: "linear",
  lr_scheduler_kwargs: null,
  warmup_steps: 0,
  optim: "adamw_torch_fused",
  optim_args: null,
  weight_decay: 0,
  adam_beta1: 0.9,
  adam_beta2: 0.999,
  adam_epsilon: 1e-8,
  max_grad_norm: 1,
  label_smoothing_factor: 0,
  neftune_noise_alpha: null,
  bf16: false,
  fp16: false,
  use_cpu: false,
  output_dir: "trainer_output",
  run_name: null,
  logging_strategy: "steps",
  logging_steps: 500,
  eval_strategy: "no",
  eval_on_start: false,
  save_strategy: "steps",
  save_steps: 500,
  save_total_limit: null,
  save_only_model: false,
  resume_from_checkpoint: null,
  seed: 42,
};

test("defaults are those of TrainingArguments", () => {
  const { config } = resolve("");
  for (const [key, value] of Object.entries(transformersDefaults)) {
    assert.deepEqual(config[key as keyof typeof config], value, key);
  }
});

test("every field of TrainingArguments, of both generations, is ours, renamed, ignored or refused", () => {
  const v5 =
    "output_dir per_device_train_batch_size num_train_epochs max_steps learning_rate lr_scheduler_type lr_scheduler_kwargs warmup_steps optim optim_args weight_decay adam_beta1 adam_beta2 adam_epsilon optim_target_modules gradient_accumulation_steps average_tokens_across_devices max_grad_norm label_smoothing_factor bf16 fp16 bf16_full_eval fp16_full_eval tf32 activation_checkpointing activation_checkpointing_kwargs gradient_checkpointing gradient_checkpointing_kwargs torch_compile torch_compile_backend torch_compile_mode use_liger_kernel liger_kernel_config use_cache neftune_noise_alpha torch_empty_cache_steps auto_find_batch_size logging_strategy logging_steps logging_first_step log_on_each_node logging_nan_inf_filter include_num_input_tokens_seen log_level log_level_replica disable_tqdm report_to run_name project trackio_space_id trackio_bucket_id trackio_static_space_id eval_strategy eval_steps eval_delay per_device_eval_batch_size prediction_loss_only eval_on_start eval_do_concat_batches eval_use_gather_object eval_accumulation_steps include_for_metrics batch_eval_metrics save_only_model save_strategy save_steps save_on_each_node save_total_limit enable_jit_checkpoint push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision load_best_model_at_end metric_for_best_model greater_is_better ignore_data_skip restore_callback_states_from_checkpoint full_determinism seed data_seed use_cpu accelerator_config parallelism_config dataloader_drop_last dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor dataloader_multiprocessing_context dataloader_in_order remove_unused_columns label_names train_sampling_strategy length_column_name ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout fsdp fsdp_config deepspeed debug skip_memory_metrics do_train do_eval do_predict resume_from_checkpoint local_rank";
  const v4 =
    "warmup_ratio evaluation_strategy overwrite_output_dir group_by_length logging_dir save_safetensors no_cuda use_mps_device half_precision_backend fp16_backend fp16_opt_level adafactor per_gpu_train_batch_size per_gpu_eval_batch_size jit_mode_eval tpu_num_cores tpu_metrics_debug past_index torchdynamo ray_scope include_tokens_per_second include_inputs_for_metrics push_to_hub_token push_to_hub_model_id push_to_hub_organization fsdp_min_num_params fsdp_transformer_layer_cls_to_wrap mp_parameters";
  const known = new Set<string>([...configKeys, ...Object.keys(foreignKeys)]);
  assert.deepEqual(
    `${v5} ${v4}`.split(" ").filter((key) => !known.has(key)),
    [],
  );
  assert.deepEqual(
    configKeys.filter((key) => Object.hasOwn(foreignKeys, key)),
    [],
  );
});

test("defaults < file < flags, in kebab or snake case, with or without an equals sign", () => {
  assert.equal(resolve("").config.learning_rate, 5e-5);
  assert.equal(resolve("learning_rate: 1e-4").config.learning_rate, 1e-4);
  for (const args of [
    ["--learning_rate", "3e-4"],
    ["--learning-rate", "3e-4"],
    ["--learning-rate=3e-4"],
  ]) {
    assert.equal(resolve("learning_rate: 1e-4", ...args).config.learning_rate, 3e-4);
  }
  assert.equal(resolve("bf16: true", "--no-bf16").config.bf16, false);
  assert.equal(resolve("", "--bf16").config.bf16, true);
  assert.equal(resolve("", "--neat_packing", "--workers", "2").config.packing, true);
  assert.equal(resolve("", "--torch_dtype", "bfloat16").config.bf16, true);
  assert.equal(resolve("", "--bf16", "--workers", "2").config.workers, 2);
  assert.equal(resolve("bf16: true", "--bf16", "false").config.bf16, false);
  // YAML 1.1, as Python reads it; a strategy stays the word that it is.
  assert.equal(resolve("bf16: yes").config.bf16, true);
  assert.equal(resolve("logging_first_step: Off").config.logging_first_step, false);
  assert.equal(resolve("save_strategy: no").config.save_strategy, "no");
  assert.equal(resolve("", "--output-dir", "1e3").config.output_dir, "1e3");
  assert.equal(resolve("", "--sample_prompt", "- [x: y").config.sample_prompt, "- [x: y");
  assert.deepEqual(resolve("", "--dataset", "[a.txt, b.txt]").config.dataset, ["a.txt", "b.txt"]);
});

test("old names are mapped with a warning, a flag's old name beats the file's new one", () => {
  const { config, warnings } = resolve("warmup_ratio: 0.1\nevaluation_strategy: epoch");
  assert.equal(config.warmup_steps, 0.1);
  assert.equal(config.eval_strategy, "epoch");
  assert.deepEqual(warnings, [
    "job.yaml:3: warmup_ratio is read as warmup_steps: 0.1",
    'job.yaml:4: evaluation_strategy is read as eval_strategy: "epoch"',
  ]);
  assert.equal(resolve("warmup_steps: 5", "--warmup-ratio", "0.2").config.warmup_steps, 0.2);
  assert.equal(resolve("torch_dtype: bfloat16").config.bf16, true);
  assert.equal(failure("max_length: 8\ncutoff_len: 9").code, "E_CONFIG_CONFLICT");
});

test("harmless foreign keys warn unless they hold their default; those that change results are refused", () => {
  assert.deepEqual(resolve("report_to: none\ndataloader_num_workers: 0").warnings, []);
  assert.match(
    resolve("report_to: wandb").warnings[0] ?? "",
    /^job\.yaml:3: report_to has no effect/,
  );
  assert.deepEqual(failure("optim_target_modules: all-linear"), {
    code: "E_CONFIG_UNSUPPORTED",
    message:
      'optim_target_modules: "all-linear" is not supported (job.yaml:3): this version cannot do it.',
  });
  assert.deepEqual(resolve("optim_target_modules: null\npush_to_hub: false").warnings, []);
});

test("an unknown key names its place and the nearest key", () => {
  assert.deepEqual(failure("learning_rat: 1"), {
    code: "E_CONFIG_UNKNOWN_KEY",
    message: "Unknown key learning_rat (job.yaml:3); did you mean learning_rate?",
  });
  assert.equal(
    failure("", "--gradient-acumulation-steps", "2").message,
    "Unknown key gradient_acumulation_steps (flag --gradient-acumulation-steps); did you mean gradient_accumulation_steps?",
  );
  // Part of a name, a name far from all others, and keys in a mapping.
  assert.match(failure("batch_size: 4").message, /did you mean per_device_train_batch_size\?$/);
  assert.equal(failure("foobarbaz: 1").message, "Unknown key foobarbaz (job.yaml:3).");
  assert.equal(
    failure("model:\n  lr: 1").message,
    "Unknown key model (job.yaml:3), which holds a mapping: keys are not nested; did you mean model_name_or_path?",
  );
  // Names on Object.prototype are unknown keys like any other.
  assert.equal(failure("toString: 1").code, "E_CONFIG_UNKNOWN_KEY");
  assert.equal(failure("constructor: 1").code, "E_CONFIG_UNKNOWN_KEY");
});

test("a wrong value names the key, what was expected and what came", () => {
  const cases: [string, string][] = [
    [
      "learning_rate: fast",
      'learning_rate must be a number of at least 0, got "fast" (job.yaml:3).',
    ],
    [
      'learning_rate: "2e-4"',
      'learning_rate must be a number of at least 0, got "2e-4" in quotes (job.yaml:3).',
    ],
    [
      "val_size: 0.95",
      "validation_split must be a share of 0 to 0.9, or a whole number of examples, got 0.95 (job.yaml:3, given as val_size).",
    ],
    ["max_length: 1", "max_length must be a whole number of at least 2, got 1 (job.yaml:3)."],
    ["bf16: maybe", 'bf16 must be true or false, or auto, got "maybe" (job.yaml:3).'],
    [
      "eval_strategy: always",
      'eval_strategy must be one of no, steps, epoch, got "always" (job.yaml:3).',
    ],
    [
      "warmup_steps: 1.5",
      "warmup_steps must be a whole number of steps, or a fraction of the run below 1, got 1.5 (job.yaml:3).",
    ],
    [
      "adam_beta1: 1",
      "adam_beta1 must be a number of at least 0 and less than 1, got 1 (job.yaml:3).",
    ],
    ["max_steps: 0", "max_steps must be -1, or a whole number of at least 1, got 0 (job.yaml:3)."],
  ];
  for (const [yaml, message] of cases) {
    assert.deepEqual(failure(yaml), { code: "E_CONFIG_INVALID", message });
  }
});

test("rules over several keys", () => {
  assert.equal(failure("fp16: true\nbf16: true").code, "E_CONFIG_CONFLICT");
  assert.equal(failure("global_batch_size: 9").code, "E_CONFIG_CONFLICT");
  assert.equal(failure("workers: 2\ngradient_groups: 3").code, "E_CONFIG_CONFLICT");
  assert.equal(failure("wire_dtype: bfloat16").code, "E_CONFIG_CONFLICT");
  assert.equal(failure("heartbeat_timeout_ms: 1500").code, "E_CONFIG_CONFLICT");
  assert.equal(failure("workers: 2\nmin_workers: 3").code, "E_CONFIG_CONFLICT");
  assert.equal(failure("workers: 2\nmax_workers: 1").code, "E_CONFIG_CONFLICT");
  assert.equal(failure("s3_endpoint: http://minio:9000").code, "E_CONFIG_CONFLICT");
  assert.equal(failure("s3_region: eu-central-1").code, "E_CONFIG_CONFLICT");
  resolve("s3_region: eu-central-1\ncheckpoint_store: s3://bucket/runs");
  resolve("s3_region: eu-central-1\nresume_from_checkpoint: s3://bucket/runs/checkpoint-2");
  assert.equal(failure("lr_scheduler_type: reduce_lr_on_plateau").code, "E_CONFIG_CONFLICT");
  assert.equal(failure("embedding_lr: 1\nembedding_lr_scale: 2").code, "E_CONFIG_CONFLICT");
  assert.equal(failure("bf16: true\nbf16: false").code, "E_CONFIG_SYNTAX");
  assert.equal(failure("- a").code, "E_CONFIG_SYNTAX");
  assert.match(failure("bf16: true\n fp16: false").message, /indented by mistake\?$/);
  assert.doesNotMatch(failure("bf16: true\nbf16: false").message, /\n|\^/);
  const bomb = ["a0: &a0 [x, x]", "a1: &a1 [*a0, *a0]", "a2: &a2 [*a1, *a1]", "a3: &a3 [*a2, *a2]"];
  const tail = "a4: &a4 [*a3, *a3]\na5: [*a4, *a4, *a4]";
  assert.match(failure(`${bomb.join("\n")}\n${tail}`).message, /alias/);
  assert.equal(failure(`${bomb.join("\n")}\n${tail}`).code, "E_CONFIG_SYNTAX");
});

test("a word behind a switch that is no value of it is named, and no file is looked for", () => {
  for (const args of [
    ["--bf16", "maybe"],
    ["--eval_on_start", "never"],
  ]) {
    assert.throws(() => resolve("", ...args), {
      code: "E_CONFIG_FLAG",
      message: new RegExp(`${args.join(" ")} cannot be read: ${args[1]} is no value of ${args[0]}`),
    });
  }
});

test("a required key that is missing is named", () => {
  assert.throws(() => resolveConfig(new Map(), new Map(), { cpuCount: 1 }), {
    code: "E_CONFIG_MISSING_KEY",
    message: /model_name_or_path/,
  });
});

test("batch sizes, groups, threads and wire type are derived once", () => {
  const { config } = resolve(
    "workers: 2\nper_device_train_batch_size: 2\ngradient_accumulation_steps: 2\nbf16: true",
  );
  assert.equal(config.global_batch_size, 8);
  assert.equal(config.gradient_groups, 2);
  assert.equal(config.threads_per_worker, 4);
  assert.equal(config.wire_dtype, "bfloat16");
  assert.equal(config.data_seed, 42);
  // One worker for a step that was planned for two: the step stays the same.
  const alone = resolve("global_batch_size: 8\nper_device_train_batch_size: 2\nworkers: 1").config;
  assert.equal(alone.gradient_accumulation_steps, 4);
  assert.ok(Object.isFrozen(config));
});

test("the printed configuration resolves to itself", () => {
  fc.assert(
    fc.property(
      fc.record({
        learning_rate: fc.double({ min: 0, max: 10, noNaN: true }),
        workers: fc.integer({ min: 1, max: 9 }),
        per_device_train_batch_size: fc.integer({ min: 1, max: 9 }),
        bf16: fc.boolean(),
        sample_prompt: fc.option(fc.string({ minLength: 1 })),
        eval_steps: fc.option(fc.integer({ min: 1, max: 1000 })),
        warmup_steps: fc.oneof(fc.nat(9), fc.double({ min: 0, max: 0.99, noNaN: true })),
        // A home directory of nobody is refused.
        dataset: fc.array(
          fc.string({ minLength: 1 }).filter((name) => !/^~[A-Za-z_]/.test(name)),
          { minLength: 1, maxLength: 3 },
        ),
      }),
      (values) => {
        const given = new Map(
          Object.entries({ model_name_or_path: "m", ...values }).map(([key, value]) => [
            key,
            { value, where: "" },
          ]),
        );
        const { config } = resolveConfig(given, new Map(), { cpuCount: 4 });
        const again = resolveConfig(parseConfigText(printConfig(config), "x"), new Map(), {
          cpuCount: 64,
        });
        assert.deepEqual(again.config, config);
        assert.deepEqual(again.warnings, []);
      },
    ),
    { numRuns: 60 },
  );
});

test("fractions of steps are rounded up, as transformers does", () => {
  assert.equal(resolveSteps(0.1, 15), 2);
  assert.equal(resolveSteps(0.1, 1000), 100);
  assert.equal(resolveSteps(7, 15), 7);
});

test("intervals by steps, by a fraction, by epoch, and none", () => {
  const interval = (yaml: string, total: number, perEpoch: number) =>
    intervalSteps(resolve(yaml).config, "eval", total, perEpoch);
  assert.equal(interval("eval_strategy: steps\neval_steps: 4", 10, 5), 4);
  assert.equal(interval("eval_strategy: steps\neval_steps: 0.25", 10, 5), 3);
  assert.equal(interval("eval_strategy: steps\nlogging_steps: 7", 10, 5), 7);
  assert.equal(interval("eval_strategy: epoch", 10, 5), 5);
  assert.equal(interval("eval_strategy: no", 10, 5), 0);
});

test("eval_delay counts steps, or epochs where evaluations come by the epoch", () => {
  const delay = (yaml: string): number => evaluationDelaySteps(resolve(yaml).config, 5);
  assert.equal(delay("eval_strategy: steps"), 0);
  assert.equal(delay("eval_strategy: steps\neval_delay: 7"), 7);
  assert.equal(delay("eval_strategy: epoch\neval_delay: 2"), 10);
});

test("files: a missing one, one too large, two of them", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "lockstep-config-"));
  t.after(() => rm(dir, { recursive: true }));
  const file = join(dir, "job.yaml");
  await writeFile(file, `${base}max_steps: 3\n`);
  assert.equal((await loadConfig([file, "--max-steps=4"])).config.max_steps, 4);
  await assert.rejects(loadConfig([join(dir, "none.yaml")]), { code: "E_FILE_NOT_FOUND" });
  await assert.rejects(loadConfig([dir]), { code: "E_FILE_UNREADABLE", message: /is a directory/ });
  await assert.rejects(loadConfig([file, file]), { code: "E_CONFIG_FLAG" });
  await assert.rejects(loadConfig([file, "bf16=true"]), { message: /two dashes, --bf16=true/ });
  await assert.rejects(loadConfig([file, "--plane"]), { code: "E_CONFIG_UNKNOWN_KEY" });
  await assert.rejects(loadConfig([file, "--seed"]), { message: /a value must follow/ });
  for (const flag of ["--resume_from_checkpoint=", "--max-steps"]) {
    const args = flag.endsWith("=") ? [flag] : [flag, " "];
    await assert.rejects(loadConfig([file, ...args]), { message: /its value is empty/ });
  }
  await assert.rejects(loadConfig([file, "-bf16"]), { message: /flags have two dashes/ });
  await writeFile(file, Buffer.from(`${base}sample_prompt: un caf\xe9\n`, "latin1"));
  await assert.rejects(loadConfig([file]), { code: "E_CONFIG_SYNTAX", message: /it is not UTF-8/ });
  await writeFile(file, Buffer.alloc((128 << 10) + 1, "#"));
  await assert.rejects(loadConfig([file]), { code: "E_CONFIG_SYNTAX", message: /131073 bytes/ });
});

test("edit distance: zero only for equal names, symmetric, a swap is one edit", () => {
  assert.equal(editDistance("kitten", "sitting"), 3);
  assert.equal(editDistance("ab", "ba"), 1);
  fc.assert(
    fc.property(fc.string({ maxLength: 8 }), fc.string({ maxLength: 8 }), (a, b) => {
      assert.equal(editDistance(a, b), editDistance(b, a));
      assert.equal(editDistance(a, b) === 0, a === b);
    }),
  );
  assert.equal(nearestName("x", []), undefined);
});
