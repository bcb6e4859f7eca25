import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { hubTokenOf, parseFlags, printChosen, printConfig } from "#lib/config/index";
import { configKeys, isConfigKey } from "#lib/config/fields";
import { foreignKeys, foreignTables } from "#lib/config/foreign-keys";
import { isSwitchKey, isTextKey, type Resolution, resolveConfig } from "#lib/config/resolve";
import { parseConfigText } from "#lib/config/yaml-file";
import { isLockstepError } from "#lib/core/errors/index";
import { packageRoot } from "#lib/core/paths";
import { failure } from "#tests/support/failure";

const fixtures = join(packageRoot, "tests/fixtures/configs");

/** Names and defaults that other libraries print of themselves. */
const readNames = (file: string): Record<string, unknown> =>
  JSON.parse(readFileSync(join(fixtures, file), "utf8")) as Record<string, unknown>;

const v5 = readNames("training_arguments_v5.json");
const v4 = readNames("training_arguments_v4_only.json");
const sft = readNames("sft_config.json");
const lora = readNames("lora_config.json");
/** What DPOConfig, ORPOConfig and RewardConfig of TRL add to those before. */
const preferences = readNames("preference_configs.json");

function resolveText(text: string, file: string, ...args: string[]): Resolution {
  const flags = parseFlags(args, isSwitchKey, isTextKey);
  return resolveConfig(parseConfigText(text, file), flags.values, { cpuCount: 8 });
}

/** A minimal job with these keys; JSON is YAML. */
const resolve = (keys: Readonly<Record<string, unknown>>): Resolution =>
  resolveText(JSON.stringify({ model_name_or_path: "m", dataset: "sotu", ...keys }), "job.yaml");

test("the lists are whole", () => {
  const sizes = [v5, v4, sft, lora, preferences].map((names) => Object.keys(names).length);
  assert.deepEqual(sizes, [114, 28, 21, 41, 19]);
});

test("every name of TrainingArguments, of both generations, TRL's configs and LoraConfig is known", () => {
  const names = Object.keys({ ...v5, ...v4, ...sft, ...lora, ...preferences });
  assert.deepEqual(
    names.filter((name) => !isConfigKey(name) && !Object.hasOwn(foreignKeys, name)),
    [],
  );
});

test("a name has one rule", () => {
  const names = [...configKeys, ...Object.values(foreignTables).flatMap(Object.keys)];
  assert.deepEqual(
    names.filter((name, i) => names.indexOf(name) !== i),
    [],
  );
  for (const rule of Object.values(foreignKeys)) {
    if (rule.kind === "renamed") assert.ok(isConfigKey(rule.to), rule.to);
  }
});

test("TrainingArguments at their defaults, whichever generation wrote them, say nothing", () => {
  for (const [name, value] of Object.entries({ ...v5, ...v4 })) {
    // Its own default is that a script decides; in a file it asks for evaluation alone.
    if (name === "do_train") continue;
    // The class fills these in itself; a file cannot hold null.
    if (value === null && isConfigKey(name) && name === "output_dir") continue;
    const { warnings } = resolve({ [name]: value });
    assert.deepEqual(
      warnings.filter((warning) => !warning.includes(" is read as ")),
      [],
      name,
    );
  }
});

test("a name at another value is acted upon, warned of or refused, never dropped", () => {
  const odd = { odd: 1 };
  for (const name of Object.keys({ ...v5, ...v4, ...sft, ...lora, ...foreignKeys })) {
    let resolution: Resolution;
    try {
      // A file of LLaMA-Factory has to name its way of fine-tuning.
      resolution = resolve({ finetuning_type: "full", [name]: odd });
    } catch (error) {
      assert.ok(isLockstepError(error), name);
      assert.match(error.message, new RegExp(`\\b${nameInMessages(name)}\\b`), name);
      continue;
    }
    const isActedUpon = isConfigKey(name)
      ? JSON.stringify(resolution.config[name]) === JSON.stringify(odd)
      : resolution.warnings.some((warning) => warning.includes(name));
    assert.ok(isActedUpon, `${name} is dropped`);
  }
});

/** The name under which a value is checked. */
function nameInMessages(name: string): string {
  const rule = Object.hasOwn(foreignKeys, name) ? foreignKeys[name] : undefined;
  return rule?.kind === "renamed" && rule.only === undefined ? rule.to : name;
}

test("a value of ours is still the one of transformers 5.24", () => {
  const { config } = resolve({});
  const different = Object.keys(v5)
    .filter(isConfigKey)
    .filter((name) => JSON.stringify(config[name]) !== JSON.stringify(v5[name]));
  // output_dir, data_seed and eval_steps are filled in from others, as transformers does; a result is
  // pushed once, at the end.
  assert.deepEqual(different, ["output_dir", "eval_steps", "hub_strategy", "data_seed"]);
});

test("v4's warmup_ratio beats warmup_steps: 0, and only that", () => {
  assert.equal(resolve({ warmup_steps: 0, warmup_ratio: 0.1 }).config.warmup_steps, 0.1);
  assert.equal(resolve({ warmup_steps: 5, warmup_ratio: 0 }).config.warmup_steps, 5);
  assert.match(
    failure(() => resolve({ warmup_steps: 5, warmup_ratio: 0.1 })),
    /^E_CONFIG_CONFLICT: .*warmup_ratio and warmup_steps/,
  );
});

const example = (name: string, ...args: string[]): Resolution => {
  const file = `llamafactory_${name}_sft.yaml`;
  return resolveText(readFileSync(join(fixtures, file), "utf8"), file, ...args);
};

test("LLaMA-Factory's full fine-tuning resolves, with a line for each key without effect", () => {
  const { config, warnings } = example("full");
  assert.deepEqual(config.dataset, ["greetings", "sums"]);
  assert.equal(config.max_length, 2048);
  assert.equal(config.max_samples, 1000);
  assert.equal(config.validation_split, 0.1);
  assert.equal(config.warmup_steps, 0.1);
  assert.equal(config.learning_rate, 1e-5);
  assert.equal(config.global_batch_size, 2);
  assert.equal(config.bf16, true);
  assert.equal(config.dataset_dir, "data");
  const named = warnings.map((warning) => /yaml:\d+: (\w+) /.exec(warning)?.[1] ?? "");
  assert.deepEqual(named.sort(), [
    "cutoff_len",
    "dataloader_num_workers",
    "ddp_timeout",
    "deepspeed",
    "overwrite_cache",
    "plot_loss",
    "preprocessing_num_workers",
    "template",
    "trust_remote_code",
    "val_size",
    "warmup_ratio",
  ]);
  assert.match(warnings.join("\n"), /template has no effect: the chat template of the model's own/);
});

test("other ways of LLaMA-Factory fail with a line about one key", () => {
  assert.match(
    failure(() => resolve({ finetuning_type: "oft", oft_rank: 4 })),
    /^E_CONFIG_UNSUPPORTED: finetuning_type: "oft" is not .*: OFT is not in this version/,
  );
});

test("LLaMA-Factory's LoRA example trains that tool's adapters", () => {
  const { config } = example("lora");
  assert.equal(config.use_peft, true);
  assert.deepEqual([config.lora_r, config.lora_alpha], [8, 16]);
  assert.equal(config.lora_target_modules, "all-linear");
  assert.equal(config.wire_dtype, "float32");
});

test("adapters of axolotl, TRL and peft are read under their names", () => {
  const axolotl = { adapter: "lora", lora_r: 16, lora_alpha: 32, lora_target_linear: true };
  assert.deepEqual(
    [resolve(axolotl).config].map((config) => [
      ...[config.use_peft, config.lora_r, config.lora_alpha, config.lora_target_modules],
    ]),
    [[true, 16, 32, "all-linear"]],
  );
  const peft = { use_peft: true, r: 4, target_modules: ["q_proj"], modules_to_save: ["score"] };
  const { config } = resolve(peft);
  assert.deepEqual(
    [config.lora_r, config.lora_alpha, config.lora_target_modules, config.lora_modules_to_save],
    [4, 8, ["q_proj"], ["score"]],
  );
  assert.deepEqual(
    resolve({ use_peft: true, lora_target: "q_proj, v_proj" }).config.lora_target_modules,
    ["q_proj", "v_proj"],
  );
  const targets = (value: unknown): unknown =>
    resolve({ use_peft: true, lora_target: value }).config.lora_target_modules;
  assert.deepEqual(targets("self_attn.q_proj,mlp.up_proj"), ["self_attn.q_proj", "mlp.up_proj"]);
  assert.equal(targets("layers.0.q_proj"), "layers.0.q_proj");
  assert.equal(targets(["all-linear"]), "all-linear");
  assert.equal(targets("ALL-LINEAR"), "all-linear");
  assert.match(
    failure(() => resolve({ adapter: "llama-adapter" })),
    /^E_CONFIG_UNSUPPORTED: adapter: "llama-adapter" .*LoRA/,
  );
  assert.equal(resolve({ use_peft: true, lora_dropout: 0.05 }).config.lora_dropout, 0.05);
  assert.match(
    failure(() => resolve({ use_peft: true, use_qalora: true })),
    /^E_CONFIG_UNSUPPORTED: use_qalora: true .*LoRA and DoRA/,
  );
});

test("options of LoRA have no effect on a full fine-tuning, and say so", () => {
  const { config, warnings } = example("lora", "--finetuning-type", "full");
  assert.equal(config.learning_rate, 1e-4);
  assert.equal(config.use_peft, false);
  assert.match(
    warnings.join("\n"),
    /lora_target: lora_target_modules has no effect: use_peft is false|as lora_target.*has no effect/,
  );
  assert.match(
    failure(() => resolve({ lora_r: 4 })),
    /^E_CONFIG_MISSING_KEY: .*use_peft.*lora_r .* is an option of LoRA/,
  );
});

test("a file of LLaMA-Factory without finetuning_type trains adapters, as it does there", () => {
  const { config, warnings } = resolve({ stage: "sft", lora_rank: 4 });
  assert.deepEqual([config.use_peft, config.lora_r, config.lora_alpha], [true, 4, 8]);
  assert.match(warnings.join("\n"), /LLaMA-Factory, .*use_peft: true/);
  assert.match(
    failure(() => resolve({ stage: "ppo", finetuning_type: "full" })),
    /^E_CONFIG_UNSUPPORTED: stage: "ppo".*sft, pt, dpo, rm/,
  );
});

test("a file of LLaMA-Factory has that tool's length and validation share", () => {
  const plain = { stage: "sft", finetuning_type: "full" };
  const { config, warnings } = resolve(plain);
  assert.equal(config.max_length, 2048);
  assert.equal(config.validation_split, 0);
  assert.match(warnings.join("\n"), /LLaMA-Factory, .*max_length: 2048, validation_split: 0/);
  assert.equal(resolve({ ...plain, cutoff_len: 512 }).config.max_length, 512);
  assert.equal(resolve({}).config.max_length, 1024);
});

test("val_size counts examples from 1 on; a directory on a hub is refused", () => {
  assert.equal(resolve({ val_size: 500 }).config.validation_split, 500);
  assert.match(
    failure(() => resolve({ dataset_dir: "REMOTE:llamafactory/demo_data" })),
    /^E_CONFIG_UNSUPPORTED: dataset_dir: "REMOTE:.* does not download data from a hub/,
  );
});

test("names of transformers' example scripts and of TRL's command line are read", () => {
  const given = { train_file: "a.jsonl", validation_split_percentage: 5, block_size: 256 };
  const { config } = resolveText(JSON.stringify({ model_name_or_path: "m", ...given }), "job.yaml");
  assert.deepEqual(config.dataset, ["a.jsonl"]);
  assert.equal(config.validation_split, 0.05);
  assert.equal(config.max_length, 256);
  const trl = resolveText("model_name_or_path: m\ndataset_name: trl-lib/Capybara", "job.yaml");
  assert.deepEqual(trl.config.dataset, ["trl-lib/Capybara"]);
});

test("names of data sets may stand in one line with commas; a path keeps its comma", () => {
  assert.deepEqual(resolve({ dataset: "a, b" }).config.dataset, ["a", "b"]);
  assert.deepEqual(resolve({ dataset: "belle_0.5m,a-b" }).config.dataset, ["belle_0.5m", "a-b"]);
  assert.deepEqual(resolve({ dataset: "a,b.txt" }).config.dataset, ["a,b.txt"]);
  assert.deepEqual(resolve({ dataset: "x/a,b.txt" }).config.dataset, ["x/a,b.txt"]);
  assert.deepEqual(resolve({ dataset: ["a,b"] }).config.dataset, ["a,b"]);
});

test("docs/configuration.md shows the messages of these mistakes", () => {
  const page = readFileSync(join(packageRoot, "docs/configuration.md"), "utf8");
  const job = (lines: string): string => {
    const text = `model_name_or_path: m\ndataset: sotu\n${lines}\n`;
    return failure(() => resolveText(text, "job.yaml")).replace(/^\w+: /, "");
  };
  for (const message of [job('learning_rate: "2e-4"'), job("bf16: true\nbatch_size: 4")]) {
    assert.ok(page.includes(`\n${message}\n`), message);
  }
});

test("a token of the hub is read under every name, and no line, file or message shows it", () => {
  const secret = "hf_verysecret";
  for (const name of ["hub_token", "push_to_hub_token", "hf_hub_token"]) {
    for (const { config, warnings } of [
      resolve({ [name]: secret, finetuning_type: "full" }),
      resolveText("model_name_or_path: m\ndataset: sotu", "job.yaml", `--${name}`, `${secret}: [`),
    ]) {
      assert.match(hubTokenOf(config) ?? "", /^hf_verysecret/, name);
      const shown = [JSON.stringify(config), printConfig(config), printChosen(config), ...warnings];
      assert.ok(!shown.join("\n").includes(secret), name);
    }
  }
  assert.equal(hubTokenOf(resolve({}).config), undefined);
  for (const wrong of [{ hub_token: [secret] }, { hub_token: { a: secret } }]) {
    const message = failure(() => resolve(wrong));
    assert.match(message, /^E_CONFIG_INVALID: hub_token must be text/);
    assert.ok(!message.includes(secret));
  }
  const both = failure(() => resolve({ hub_token: "hf_other", push_to_hub_token: secret }));
  assert.match(both, /^E_CONFIG_CONFLICT: /);
  assert.ok(!both.includes(secret));
});

test("a push is what push_to_hub says, once, to main; its options alone are told of", () => {
  const push = { push_to_hub: true, hub_model_id: "a/b" };
  assert.deepEqual(resolve(push).warnings, []);
  assert.equal(resolve({ ...push, hub_strategy: "end" }).config.hub_strategy, "end");
  for (const strategy of ["every_save", "checkpoint", "all_checkpoints"]) {
    assert.match(
      failure(() => resolve({ ...push, hub_strategy: strategy })),
      new RegExp(`^E_CONFIG_UNSUPPORTED: hub_strategy: ${strategy} is not supported`),
    );
    assert.deepEqual(resolve({ hub_strategy: strategy }).warnings, []);
  }
  for (const key of [{ hub_model_id: "a/b" }, { hub_private_repo: true }]) {
    assert.match(resolve(key).warnings.join(), /has no effect: push_to_hub: true is what pushes/);
  }
  assert.match(
    failure(() => resolve({ ...push, hub_revision: "dev" })),
    /^E_CONFIG_UNSUPPORTED: hub_revision: .*pushed to the branch main/,
  );
  assert.match(
    failure(() => resolve({ push_to_hub_organization: "lab" })),
    /^E_CONFIG_UNSUPPORTED: .*write hub_model_id: ORGANISATION\/NAME/,
  );
});

test("a file that asks for evaluation or prediction alone does not train", () => {
  const refuses = (keys: Readonly<Record<string, unknown>>, message: RegExp): void =>
    assert.match(
      failure(() => resolve(keys)),
      message,
    );
  refuses(
    { do_train: false, do_eval: true },
    /^E_CONFIG_UNSUPPORTED: do_train: false .*eval_on_st/,
  );
  refuses({ do_train: "no" }, /^E_CONFIG_UNSUPPORTED: do_train/);
  refuses({ do_predict: true }, /^E_CONFIG_UNSUPPORTED: do_predict: true .*lockstep generate/);
  assert.equal(resolve({ do_train: true, do_eval: true }).config.eval_on_end, true);
  assert.deepEqual(resolve({ do_train: true, do_eval: false, do_predict: false }).warnings, []);
  assert.match(
    failure(() => resolve({ do_eval: true, eval_on_end: false })),
    /^E_CONFIG_CONFLICT: .*do_eval and eval_on_end/,
  );
});

test("the format that conversations are to have is kept for the model's own template to meet", () => {
  assert.equal(resolve({ chat_template: "chatml" }).config.chat_template, "chatml");
  assert.deepEqual(resolve({ chat_template: "chatml" }).warnings, []);
  for (const key of ["chat_template", "conversation"]) {
    assert.match(
      failure(() =>
        resolve({ dataset: [{ path: "a.jsonl", type: "chat_template", [key]: "chatml" }] }),
      ),
      new RegExp(`^E_CONFIG_UNSUPPORTED: dataset\\[0\\]\\.${key}: "chatml" .*beside the data sets`),
    );
  }
});

test("one message names every value that is wrong", () => {
  const text = 'model_name_or_path: m\ndataset: sotu\nlearning_rate: "2e-4"\nseed: -1\nbf16: 3\n';
  const message = failure(() => resolveText(text, "job.yaml"));
  assert.match(message, /learning_rate must be .* in quotes \(job\.yaml:3\)/);
  assert.match(message, /; seed must be .*got -1 \(job\.yaml:4\)/);
  assert.match(message, /; bf16 must be .*got 3 \(job\.yaml:5\)\.$/);
  const hub = failure(() => resolve({ hub_token: ["hf_secret"], seed: "x" }));
  assert.ok(!hub.includes("hf_secret") && hub.includes("seed"), hub);
});

test("a model's revision is read under the names of peft and axolotl", () => {
  for (const name of ["model_revision", "revision", "revision_of_model"]) {
    assert.equal(resolve({ [name]: "refs/pr/1" }).config.model_revision, "refs/pr/1");
  }
  assert.equal(resolve({}).config.model_revision, "main");
});
