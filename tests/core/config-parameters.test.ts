import assert from "node:assert/strict";
import { test } from "node:test";
import { decisiveSettings, parseFlags, printConfig } from "#lib/config/index";
import { declaredKeys, sections } from "#lib/config/fields";
import { isSwitchKey, isTextKey, type Resolution, resolveConfig } from "#lib/config/resolve";
import { parseConfigText } from "#lib/config/yaml-file";
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

test("a record of a Lockstep without a key is one that left it open", () => {
  const now = { settings: { a: 1, b: null } };
  assert.deepEqual(differingSettings({ settings: { a: 1 } }, now), []);
  assert.deepEqual(differingSettings({ settings: { a: 1, c: 2 } }, now), [
    "c was 2 and is now not there",
  ]);
});
