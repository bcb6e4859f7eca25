import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { decisiveSettings, parseFlags, printConfig } from "#lib/config/index";
import { declaredKeys, sections } from "#lib/config/fields";
import { isSwitchKey, isTextKey, type Resolution, resolveConfig } from "#lib/config/resolve";
import { parseConfigText } from "#lib/config/yaml-file";
import { packageRoot } from "#lib/core/paths";
import { parametersKinds } from "#lib/parameters/index";
import { differingSettings } from "#lib/checkpoint/run-identity";

function resolve(lines: string, ...args: string[]): Resolution {
  const text = `model_name_or_path: m\ndataset: sotu\n${lines}\n`;
  const flags = parseFlags(args, isSwitchKey, isTextKey);
  return resolveConfig(parseConfigText(text, "job.yaml"), flags.values, { cpuCount: 8 });
}

test("every key that a kind declares is a key of the configuration, in a section of the kind", () => {
  for (const { title, fields } of parametersKinds) {
    const keys = Object.keys(fields);
    assert.deepEqual(Object.keys(sections[title] ?? {}), keys);
    for (const key of keys) assert.ok(declaredKeys.some((each) => each === key));
  }
});

test("finetuning_type and use_peft are two names of one choice", () => {
  for (const [lines, args, usesPeft] of [
    ["", [], false],
    ["use_peft: true", [], true],
    ["finetuning_type: lora", [], true],
    ["finetuning_type: full", [], false],
    ["finetuning_type: lora\nuse_peft: true", [], true],
    ["finetuning_type: lora\nuse_peft: yes", [], true],
    ["finetuning_type: freeze\nuse_peft: off", [], false],
    ["use_peft: true", ["--finetuning-type", "full"], false],
    ["finetuning_type: lora", ["--no-use-peft"], false],
  ] as const) {
    const { config } = resolve(lines, ...args);
    assert.equal(config.use_peft, usesPeft, `${lines} ${args.join(" ")}`);
    const again = resolveConfig(parseConfigText(printConfig(config), "lockstep.yaml"), new Map(), {
      cpuCount: 8,
    });
    assert.deepEqual([again.config, again.warnings], [config, []]);
    assert.equal(config.max_length, 1024, "a file of ours has our defaults");
  }
  assert.throws(
    () => resolve("finetuning_type: full\nuse_peft: true"),
    /finetuning_type and use_peft.*both name what is trained/,
  );
});

test("the two names of a choice make one run, and keys of another choice none", () => {
  const settings = (...parts: Parameters<typeof resolve>) => ({
    settings: decisiveSettings(resolve(...parts).config),
  });
  const differences = (a: string, b: string) => differingSettings(settings(a), settings(b));
  assert.deepEqual(differences("use_peft: true", "finetuning_type: lora"), []);
  assert.deepEqual(differences("", "finetuning_type: full\nlora_r: 2"), []);
  assert.deepEqual(differences("use_peft: true", "use_peft: true\nlora_r: 2"), [
    "lora_r was 8 and is now 2",
  ]);
});

test("class weights, label smoothing and a z-loss make another run, and a record without them is one of their defaults", () => {
  const settings = (text: string) => ({ settings: decisiveSettings(resolve(text).config) });
  const {
    label_smoothing_factor: _,
    class_weights: __,
    z_loss_weight: ___,
    ...without
  } = settings("").settings;
  assert.deepEqual(differingSettings({ settings: without }, settings("")), []);
  const weighted = (weights: string) => settings(`class_weights: ${weights}`);
  assert.deepEqual(
    differingSettings(weighted("{spam: 3, ham: 1}"), weighted("{ham: 1, spam: 3}")),
    [],
  );
  assert.deepEqual(differingSettings(weighted("balanced"), weighted("{ham: 1, spam: 2.5}")), [
    'class_weights was "balanced" and is now {"ham":1,"spam":2.5}',
  ]);
  assert.deepEqual(differingSettings(settings(""), settings("label_smoothing_factor: 0.1")), [
    "label_smoothing_factor was null and is now 0.1",
  ]);
  assert.deepEqual(differingSettings(settings("z_loss_weight: 0.1"), settings("")), [
    "z_loss_weight was 0.1 and is now null",
  ]);
});

test("class weights and label smoothing of no meaning are refused, and others print as they resolve", () => {
  for (const text of [
    "class_weights: even",
    "class_weights: {spam: 0}",
    "class_weights: {spam: -1}",
    "class_weights: {spam: 100000}",
    "class_weights: {spam: many}",
    "class_weights: [1, 2]",
    "label_smoothing_factor: 1",
    "label_smoothing_factor: -0.1",
    "z_loss_weight: -0.1",
    "z_loss_weight: 2",
    "z_loss_weight: auto",
  ]) {
    assert.throws(
      () => resolve(text),
      /E_CONFIG_INVALID|class_weights|label_smoothing_factor|z_loss_weight/,
      text,
    );
  }
  const { config } = resolve(
    "class_weights: {spam: 3, 0: 0.5, true: 1}\nlabel_smoothing_factor: 0.1",
  );
  assert.deepEqual(config.class_weights, { spam: 3, 0: 0.5, true: 1 });
  const printed = parseConfigText(printConfig(config), "lockstep.yaml");
  assert.deepEqual(resolveConfig(printed, new Map(), { cpuCount: 8 }).config, config);
  assert.equal(resolve("", "--class-weights", "balanced").config.class_weights, "balanced");
});

test("a record of a Lockstep without a key is one that left it open", () => {
  const now = { settings: { a: 1, b: null } };
  assert.deepEqual(differingSettings({ settings: { a: 1 } }, now), []);
  assert.deepEqual(differingSettings({ settings: { a: 1, c: 2 } }, now), [
    "c was 2 and is now not there",
  ]);
});

/** LLaMA-Factory's own example, for another machine. */
function freezeExample(...args: string[]): Resolution {
  const file = join(packageRoot, "tests/fixtures/configs/llamafactory_freeze_sft.yaml");
  const flags = parseFlags(args, isSwitchKey, isTextKey);
  const text = parseConfigText(readFileSync(file, "utf8"), "example.yaml");
  return resolveConfig(text, flags.values, { cpuCount: 8 });
}

test("LLaMA-Factory's freeze example trains the layers that it names", () => {
  const { config, warnings } = freezeExample();
  assert.deepEqual(
    [config.finetuning_type, config.use_peft, config.wire_dtype],
    ["freeze", false, config.bf16 === true ? "bfloat16" : "float32"],
  );
  assert.deepEqual(
    [config.freeze_trainable_layers, config.freeze_trainable_modules, config.freeze_extra_modules],
    [8, ["all"], null],
  );
  assert.doesNotMatch(warnings.join("\n"), /freez|finetuning_type/);
  assert.match(
    freezeExample("--finetuning-type", "full").warnings.join("\n"),
    /freeze_trainable_layers has no effect: finetuning_type is full/,
  );
  assert.throws(
    () => resolve("freeze_trainable_layers: 4"),
    /finetuning_type.*freeze_trainable_layers .* is an option of Freezing/,
  );
});

test("a printed run of some layers is ours, and resolves to itself", () => {
  const { config } = resolve(
    "finetuning_type: freeze\nfreeze_extra_modules: lm_head\npacking: true",
  );
  const printed = parseConfigText(printConfig(config), "lockstep.yaml");
  const again = resolveConfig(printed, new Map(), { cpuCount: 8 });
  assert.deepEqual([again.config, again.warnings], [config, []]);
  assert.deepEqual([config.max_length, config.freeze_extra_modules], [1024, ["lm_head"]]);
});

test("last_n is another name of freeze, and is told so", () => {
  const { config, warnings } = resolve("finetuning_type: last_n\nfreeze_trainable_layers: 3");
  assert.deepEqual([config.finetuning_type, config.freeze_trainable_layers], ["freeze", 3]);
  assert.match(warnings.join("\n"), /finetuning_type: last_n is read as freeze/);
});

test("factors that float32 does not have, too small or too large, are refused", () => {
  for (const [key, factors] of [
    ["ewc_lambda", ["1.0e-300", "1.0e300", "-1"]],
    ["neftune_noise_alpha", ["1.0e-50", "1.0e39", ".inf"]],
    ["z_loss_weight", ["1.0e-50", "1.5"]],
  ] as const) {
    for (const factor of factors) {
      const text = `${key}: ${factor}`;
      assert.throws(() => resolve(text), new RegExp(`${key} must be 0, or a number of`), text);
    }
  }
});
