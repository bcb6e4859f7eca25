import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { parseFlags, printConfig } from "#lib/config/index";
import { isSwitchKey, isTextKey, type Resolution, resolveConfig } from "#lib/config/resolve";
import { parseConfigText } from "#lib/config/yaml-file";
import { packageRoot } from "#lib/core/paths";
import { failure } from "#tests/support/failure";

const fixtures = join(packageRoot, "tests/fixtures/configs");

function resolveText(text: string, file: string, ...args: string[]): Resolution {
  const flags = parseFlags(args, isSwitchKey, isTextKey);
  return resolveConfig(parseConfigText(text, file), flags.values, { cpuCount: 8 });
}

const example = (name: string, ...args: string[]): Resolution => {
  const file = `axolotl_${name}.yml`;
  return resolveText(readFileSync(join(fixtures, file), "utf8"), file, ...args);
};

const resolve = (keys: Readonly<Record<string, unknown>>, ...args: string[]): Resolution =>
  resolveText(JSON.stringify({ base_model: "m", ...keys }), "job.yml", ...args);

const ofEntry = (entry: Readonly<Record<string, unknown>>): Resolution =>
  resolve({ datasets: [{ path: "rows.jsonl", ...entry }] });

test("axolotl's LoRA example resolves, with a line for each key that has another name or no effect", () => {
  const { config, warnings } = example("lora_1b");
  assert.deepEqual([config.optim, config.bf16, config.fp16], ["adamw_8bit", "auto", "auto"]);
  assert.deepEqual(config.dataset, [{ path: "data/instructions.jsonl", type: "alpaca" }]);
  assert.equal(config.validation_split, 0.1);
  assert.deepEqual([config.use_peft, config.lora_r, config.lora_alpha], [true, 16, 32]);
  assert.equal(config.lora_dropout, 0.05);
  assert.equal(config.lora_target_modules?.length, 7);
  assert.deepEqual([config.max_length, config.packing, config.global_batch_size], [2048, true, 4]);
  assert.deepEqual([config.num_train_epochs, config.lr_scheduler_type], [1, "cosine"]);
  assert.deepEqual([config.warmup_steps, config.gradient_checkpointing], [0.1, true]);
  // Four evaluations in one epoch; one checkpoint in one epoch is one at its end.
  assert.deepEqual([config.eval_strategy, config.eval_steps], ["steps", 0.25]);
  assert.equal(config.save_strategy, "epoch");
  assert.deepEqual(config.special_tokens, { pad_token: "<|end|>" });
  const text = warnings.join("\n");
  for (const key of [
    ...["base_model", "datasets", "val_set_size", "adapter", "sequence_len", "sample_packing"],
    ...["eval_sample_packing", "micro_batch_size", "num_epochs", "lr_scheduler", "tf32"],
    ...["flash_attention", "loss_watchdog_threshold", "warmup_ratio", "evals_per_epoch"],
    "saves_per_epoch",
  ]) {
    assert.match(text, new RegExp(`:\\d+: ${key} `), key);
  }
  // The batch of evaluation is that of training, as there.
  assert.match(text, /axolotl, whose defaults hold: per_device_eval_batch_size: 2/);
});

test("what stops early ends with its best model, where every save has its evaluation", () => {
  const stopping = {
    datasets: [{ path: "a.jsonl" }],
    val_set_size: 0.1,
    early_stopping_patience: 3,
  };
  const { config, warnings } = resolve({ ...stopping, eval_steps: 10, save_steps: 20 });
  assert.deepEqual([config.early_stopping_patience, config.load_best_model_at_end], [3, true]);
  assert.match(warnings.join("\n"), /axolotl, whose defaults hold: .*load_best_model_at_end: true/);
  for (const keys of [
    { ...stopping, eval_steps: 20, save_steps: 30 },
    { ...stopping, eval_steps: 10, save_steps: 20, load_best_model_at_end: false },
    { ...stopping, eval_steps: 10, save_steps: 20, early_stopping_patience: null },
    stopping,
  ]) {
    assert.equal(resolve(keys).config.load_best_model_at_end, false);
  }
});

test("what its examples ask for and is not here is refused by name, one flag an answer", () => {
  const message = (...args: string[]): string => failure(() => example("lora_1b", ...args));
  assert.match(
    message("--optimizer", "muon"),
    /^E_CONFIG_UNSUPPORTED: optimizer: "muon" .*adamw_torch_fused/,
  );
  assert.match(
    failure(() => example("lora_3b")),
    /^E_CONFIG_UNSUPPORTED: load_in_8bit: true .*quantised/,
  );
});

test("the example of a base model resolves: own prompts, chats, linear layers, special tokens", () => {
  const { config } = example("lora_3b", "--load_in_8bit", "false");
  const [prompts, chats] = config.dataset;
  assert.ok(typeof prompts === "object" && typeof prompts.type === "object");
  assert.deepEqual(prompts.data_files, ["data/greetings.json"]);
  assert.equal(prompts.type.format, "User: {instruction} {input}\nAssistant:");
  assert.ok(typeof chats === "object");
  assert.equal(chats.field_system, "context");
  assert.equal(config.lora_target_modules, "all-linear");
  assert.deepEqual([config.eval_steps, config.save_steps], [1 / 16, 1 / 4]);
  assert.deepEqual([config.eval_strategy, config.save_strategy], ["steps", "steps"]);
  // What is printed, and saved beside a checkpoint, resolves to itself without a word.
  const again = resolveText(printConfig(config), "lockstep.yaml");
  assert.deepEqual(again, { config, warnings: [] });
});

test("a file of axolotl has that tool's defaults, and flags of ours win", () => {
  const { config, warnings } = resolve({ datasets: [{ path: "a.jsonl", type: "alpaca" }] });
  assert.deepEqual(
    [config.max_length, config.num_train_epochs, config.per_device_train_batch_size],
    [512, 1, 1],
  );
  assert.deepEqual(
    [config.validation_split, config.lr_scheduler_type, config.warmup_steps],
    [0, "cosine", 0.03],
  );
  assert.deepEqual([config.eval_strategy, config.save_strategy], ["no", "epoch"]);
  assert.match(warnings.join("\n"), /axolotl, whose defaults hold: max_length: 512, /);
  const every = resolve({ datasets: ["a.jsonl"], val_set_size: 9, evals_per_epoch: 2 });
  assert.deepEqual([every.config.eval_strategy, every.config.eval_steps], ["steps", 0.5]);
  const flagged = resolve(
    { datasets: ["a.jsonl"], val_set_size: 9, evals_per_epoch: 2 },
    ...["--eval_steps", "3", "--dataset", "b.jsonl"],
  );
  assert.deepEqual([flagged.config.eval_strategy, flagged.config.eval_steps], ["steps", 3]);
  assert.deepEqual(flagged.config.dataset, ["b.jsonl"]);
  assert.match(
    failure(() => resolve({ datasets: ["a"], val_set_size: 9, evals_per_epoch: 2, eval_steps: 3 })),
    /^E_CONFIG_CONFLICT: .*evals_per_epoch and eval_steps/,
  );
  const none = resolve({ datasets: ["a.jsonl"], evals_per_epoch: 2 });
  assert.match(none.warnings.join("\n"), /evals_per_epoch has no effect: nothing is validated/);
  assert.match(
    failure(() => resolve({ datasets: ["a.jsonl"], saves_per_epoch: "often" })),
    /^E_CONFIG_INVALID: saves_per_epoch must be a number/,
  );
});

test("linear layers stand beside names of linear layers, and not beside others", () => {
  const both = (names: string[]): Resolution =>
    resolve({
      ...{ datasets: ["a.jsonl"], adapter: "lora", lora_target_linear: true },
      lora_target_modules: names,
    });
  assert.equal(both(["q_proj"]).config.lora_target_modules, "all-linear");
  assert.match(
    failure(() => both(["embed_tokens"])),
    /^E_CONFIG_CONFLICT: .*lora_target_linear and lora_target_modules/,
  );
});

test("an entry's key at any value is kept, warned of or refused by name", () => {
  const kept: Readonly<Record<string, unknown>>[] = [
    { type: "completion", field: "body" },
    { type: "chat_template", field_messages: "talk", roles: { assistant: ["bot"] } },
    { type: "chat_template", message_field_training: "train", drop_system_message: true },
    { type: "chat_template", field_tools: "functions", field_system: "context" },
    { type: "chat_template", message_property_mappings: { role: "from", content: "value" } },
  ];
  for (const entry of kept) {
    const { config } = ofEntry(entry);
    const [read] = config.dataset;
    assert.deepEqual(read, { path: "rows.jsonl", ...entry });
  }
  // At a value that is nobody's default.
  const odd = "odd";
  for (const key of [
    ...["name", "split", "shards", "shards_idx", "input_transform", "input_format", "field_human"],
    ...["train_on_eos", "train_on_eot", "message_field_training_detail", "chat_template_jinja"],
    ...["field_model", "field_thinking", "template_thinking_key", "split_thinking", "temperature"],
    ...["logprobs_field", "roles_to_train", "ds_type", "type", "drop_system_message", "roles"],
    ...["message_property_mappings", "data_filez", "conversation", "chat_template"],
  ]) {
    const message = failure(() => ofEntry({ type: "chat_template", [key]: odd }));
    assert.match(message, new RegExp(`^E_CONFIG_\\w+: .*dataset\\[0\\]\\.${key}`), key);
    assert.match(message, /job\.yml:1, given as datasets/, key);
  }
  for (const key of [
    ...["trust_remote_code", "revision", "preprocess_shards"],
    // Of another type.
    "field",
  ]) {
    const { config, warnings } = ofEntry({ type: "chat_template", [key]: odd });
    assert.match(warnings.join("\n"), new RegExp(`dataset\\[0\\]\\.${key} has no effect: `), key);
    assert.deepEqual(config.dataset, [{ path: "rows.jsonl", type: "chat_template" }]);
  }
});

test("a type that is not here is refused with what to write instead", () => {
  assert.match(
    failure(() => ofEntry({ type: "input_output" })),
    /prompt and completion, or as mess/,
  );
  assert.match(
    failure(() => ofEntry({ type: "gpteacher" })),
    /a mapping with field_instruction/,
  );
  assert.match(
    failure(() => ofEntry({ type: { format: "{instruction}{output}" } })),
    /dataset\[0\]\.type\.format must be text with \{instruction\} and \{input\}/,
  );
  assert.match(
    failure(() => ofEntry({ type: { field_inputs: "a" } })),
    /Unknown key dataset\[0\]\.type\.field_inputs .*did you mean field_input\?/,
  );
  assert.match(
    failure(() => ofEntry({ field: "body" })),
    /dataset\[0\]\.field.*without a type/,
  );
});

test("the kind of file that is said is the one that its name says", () => {
  const fails = (entry: Readonly<Record<string, unknown>>): string =>
    failure(() => resolve({ datasets: [{ type: "completion", ...entry }] }));
  assert.match(fails({ path: "a.csv", ds_type: "json" }), /a\.csv is read by its ending, \.csv/);
  assert.match(fails({ path: "a.txt" }), /one text here and a row a line in axolotl/);
  assert.match(fails({ path: "json" }), /data_files has to name the files/);
  assert.match(fails({}), /dataset\[0\]\.path must be text, got nothing/);
  const files = { path: "json", data_files: ["a.json", "b.jsonl"], type: "completion" };
  assert.deepEqual(resolve({ datasets: [files] }).config.dataset, [files]);
});

test("sharegpt, as older files have it, is a chat template over its columns", () => {
  const { config, warnings } = ofEntry({ type: "sharegpt" });
  assert.deepEqual(config.dataset, [
    {
      ...{ path: "rows.jsonl", type: "chat_template", field_messages: "conversations" },
      message_property_mappings: { role: "from", content: "value" },
    },
  ]);
  assert.match(warnings.join("\n"), /sharegpt is read as chat_template/);
});

test("validation data of its own leaves nothing to split off, and says so", () => {
  const keys = { datasets: ["a.jsonl"], test_datasets: [{ path: "b.jsonl", type: "alpaca" }] };
  const { config, warnings } = resolve({ ...keys, val_set_size: 0.1 });
  assert.deepEqual(config.eval_dataset, [{ path: "b.jsonl", type: "alpaca" }]);
  assert.equal(config.eval_strategy, "epoch");
  assert.match(warnings.join("\n"), /validation_split has no effect: eval_dataset validates/);
  assert.doesNotMatch(resolve(keys).warnings.join("\n"), /validation_split has no effect/);
});

test("bf16: auto leaves float16 to a device without bfloat16, as there", () => {
  const halves = (keys: Readonly<Record<string, unknown>>): unknown[] => {
    const { bf16, fp16 } = resolve({ datasets: ["a.jsonl"], ...keys }).config;
    return [bf16, fp16];
  };
  assert.deepEqual(halves({ bf16: "auto" }), ["auto", "auto"]);
  assert.deepEqual(halves({ bf16: "auto", fp16: null }), ["auto", "auto"]);
  assert.deepEqual(halves({ bf16: "auto", fp16: false }), ["auto", false]);
  assert.deepEqual(halves({ fp16: true }), [false, true]);
});

test("an empty line turns no switch on, and is no number", () => {
  assert.equal(resolve({ datasets: ["a.jsonl"], fp16: null, bf16: null }).config.bf16, false);
  assert.match(
    failure(() => resolve({ datasets: ["a.jsonl"], learning_rate: null })),
    /^E_CONFIG_INVALID: learning_rate must be a number/,
  );
});

test("keys of axolotl's examples that change no result have no effect, and are told", () => {
  const { warnings } = resolve({
    ...{ datasets: "rows.jsonl", flash_attn_fuse_qkv: true, flash_attn_fuse_mlp: true },
    eval_max_new_tokens: 128,
  });
  const text = warnings.join("\n");
  for (const key of ["flash_attn_fuse_qkv", "flash_attn_fuse_mlp", "eval_max_new_tokens"]) {
    assert.match(text, new RegExp(`: ${key} has no effect`));
  }
});
