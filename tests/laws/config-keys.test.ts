import assert from "node:assert/strict";
import { test } from "node:test";
import { z } from "zod";
import { type ConfigCommand, configCommands, unreadKeys } from "#lib/config/index";
import { type ConfigKey, configKeys, fields, isConfigKey, pathKeys } from "#lib/config/fields";
import { keysReadBy } from "#tests/support/key-readers";

const functions: Readonly<Record<ConfigCommand, readonly [file: string, name: string]>> = {
  train: ["cli/train.ts", "trainCommand"],
  coordinator: ["cli/coordinator.ts", "coordinatorCommand"],
  "train-local": ["cli/train-local.ts", "trainLocalCommand"],
};

/** What they read decides nothing: the configuration is checked, compared with another one, or shown. */
const onlyChecks = ["check-together", "command-keys", "idle-keys", "print", "fields", "show"].map(
  (name) => `lib/config/${name}.ts`,
);

/** Keys with one effect, whatever their value: others are refused where the configuration is checked. */
const ofOneEffect: readonly ConfigKey[] = ["hub_strategy"];

for (const command of configCommands) {
  test(`every key has a reader in lockstep ${command}, or a line on what becomes of it`, () => {
    const read = keysReadBy(...functions[command], onlyChecks);
    const without = configKeys.filter(
      (key) => !read.has(key) && !ofOneEffect.includes(key) && !(key in unreadKeys[command]),
    );
    assert.deepEqual(without, []);
  });
}

test("the search for readers sees what a command reaches, and that alone", () => {
  const local = keysReadBy(...functions["train-local"], onlyChecks);
  const train = keysReadBy(...functions.train, onlyChecks);
  const coordinator = keysReadBy(...functions.coordinator, onlyChecks);
  for (const key of ["heartbeat_interval_ms", "max_worker_restarts", "lease_timeout_ms"]) {
    assert.ok(train.has(key) && !local.has(key), key);
  }
  for (const key of ["max_worker_restarts", "engine_module", "use_cpu"]) {
    assert.ok(train.has(key) && !coordinator.has(key), key);
  }
  // Read by name, out of a pattern, under another name, by a computed name, and through other modules.
  for (const key of ["seed", "eval_delay", "metric_for_best_model", "save_steps", "adam_beta1"]) {
    assert.ok(train.has(key), key);
  }
});

test("what becomes of a key that a command does not act on names keys of the schema", () => {
  for (const [command, rules] of Object.entries(unreadKeys)) {
    for (const [key, { reason, unless, allowed }] of Object.entries(rules)) {
      assert.ok(isConfigKey(key), `${command}: ${key}`);
      assert.match(reason, /^[a-z].*[^.]$/, key);
      for (const [beside, values] of unless ?? []) {
        assert.ok(isConfigKey(beside), key);
        for (const value of values === "set" ? [] : values) {
          assert.ok(fields[beside].safeParse(value).success, key);
        }
      }
      for (const value of allowed ?? []) assert.ok(fields[key].safeParse(value).success, key);
    }
  }
});

test("a key that is called a file, a directory, a path or a module is a path", () => {
  const isText = (schema: z.ZodType): boolean => {
    if (schema instanceof z.ZodDefault || schema instanceof z.ZodNullable) {
      return isText(schema.unwrap() as z.ZodType);
    }
    return schema instanceof z.ZodString;
  };
  const named = configKeys.filter(
    (key) => /_(file|dir|path|module)$/.test(key) && isText(fields[key]),
  );
  assert.deepEqual(
    named.filter((key) => !pathKeys.some((each) => each === key)),
    [],
  );
  assert.ok(named.length > 6);
});
