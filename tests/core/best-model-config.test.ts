import assert from "node:assert/strict";
import { test } from "node:test";
import { parseSizeBytes } from "#lib/config/index";
import { parseConfigText } from "#lib/config/yaml-file";
import { type ResolvedConfig, resolveConfig } from "#lib/config/resolve";
import { isLockstepError } from "#lib/core/errors/index";

function resolve(yaml: string): ResolvedConfig {
  const text = `model_name_or_path: m\ndataset: sotu\n${yaml}`;
  return resolveConfig(parseConfigText(text, "job.yaml"), new Map(), { cpuCount: 2 }).config;
}

const refuses = (yaml: string, message: RegExp): void => {
  assert.throws(
    () => resolve(yaml),
    (error) =>
      isLockstepError(error) && error.code.startsWith("E_CONFIG_") && message.test(error.message),
    yaml,
  );
};

test("load_best_model_at_end follows the Trainer's rules", () => {
  const steps = "load_best_model_at_end: true\neval_strategy: steps\nsave_strategy: steps\n";
  assert.equal(resolve(`${steps}eval_steps: 50\nsave_steps: 100`).load_best_model_at_end, true);
  assert.equal(resolve(`${steps}eval_steps: 0.05\nsave_steps: 0.1`).save_steps, 0.1);
  assert.equal(resolve("save_strategy: best\neval_strategy: epoch").save_strategy, "best");
  refuses("load_best_model_at_end: true", /without evaluations/);
  refuses(
    "load_best_model_at_end: true\neval_strategy: epoch",
    /eval_strategy \(epoch\) and save_strategy \(steps\)/,
  );
  refuses(`${steps}eval_steps: 30\nsave_steps: 100`, /100 is not a multiple of eval_steps 30/);
  refuses(`${steps}eval_steps: 0.1\nsave_steps: 100`, /not a multiple/);
  refuses("save_strategy: best", /without evaluations/);
  refuses("load_best_model_at_end: true\nsave_strategy: no", /without evaluations/);
});

test("early stopping asks for evaluations, and a threshold for a patience", () => {
  const steps = "eval_strategy: steps\nearly_stopping_patience: 2\n";
  assert.equal(resolve(steps).early_stopping_threshold, 0);
  assert.equal(
    resolve("eval_strategy: steps\nstage: sft\nearly_stopping_steps: 3").early_stopping_patience,
    3,
  );
  refuses("early_stopping_patience: 2", /evaluations end the run, and there are none/);
  refuses("early_stopping_threshold: 0.1", /early_stopping_threshold and early_stopping_patience/);
  refuses(`${steps}early_stopping_threshold: -0.1`, /early_stopping_threshold/);
  refuses("eval_strategy: steps\nearly_stopping_patience: 0", /early_stopping_patience/);
});

test("max_shard_size is read as transformers reads it", () => {
  for (const [size, bytes] of [
    ["5GB", 5e9],
    ["5GiB", 5 * 2 ** 30],
    ["200mb", 200e6],
    ["1.5KB", 1500],
    [12345, 12345],
  ] as const) {
    assert.equal(parseSizeBytes(size), bytes);
    assert.equal(resolve(`max_shard_size: ${size}`).max_shard_size, size);
  }
  for (const size of ["5", "GB", "5PB", "-1GB", "0.1 KB of"]) {
    assert.equal(parseSizeBytes(size), undefined);
  }
  refuses("max_shard_size: 5 parrots", /max_shard_size.*5GB or 500MiB/);
});
