import assert from "node:assert/strict";
import { test } from "node:test";
import { type ConfigCommand, parseFlags } from "#lib/config/index";
import { isSwitchKey, isTextKey, type Resolution, resolveConfig } from "#lib/config/resolve";
import { parseConfigText } from "#lib/config/yaml-file";
import { isLockstepError } from "#lib/core/errors/index";

const base = "model_name_or_path: m\ndataset: sotu\n";

function resolve(command: ConfigCommand, yaml: string, ...args: string[]): Resolution {
  const flags = parseFlags(args, isSwitchKey, isTextKey);
  const file = parseConfigText(base + yaml, "job.yaml");
  return resolveConfig(file, flags.values, { cpuCount: 8 }, command);
}

function refusal(command: ConfigCommand, yaml: string, ...args: string[]): string {
  try {
    resolve(command, yaml, ...args);
  } catch (error) {
    assert.ok(isLockstepError(error), String(error));
    assert.equal(error.code, "E_CONFIG_UNSUPPORTED");
    return error.message;
  }
  assert.fail(`lockstep ${command} does not refuse ${yaml}`);
}

test("defaults are refused nowhere", () => {
  for (const command of ["train", "coordinator", "train-local"] as const) {
    assert.deepEqual(resolve(command, "").warnings, []);
  }
});

test("train-local refuses checkpoints, with the line and the command that makes them", () => {
  for (const line of [
    ...["resume_from_checkpoint: true", "resume_from_checkpoint: runs/checkpoint-3"],
    ...["save_strategy: steps", "save_strategy: epoch", "save_steps: 3", "save_total_limit: 2"],
    ...["save_only_model: true", "metric_for_best_model: loss", "greater_is_better: true"],
  ]) {
    const message = refusal("train-local", line);
    assert.match(message, /is not supported \(job\.yaml:[345]\): .*`lockstep train`/, line);
    assert.ok(message.includes(line.split(":")[0] ?? ""), message);
    assert.doesNotThrow(() => resolve("train", line));
  }
  assert.match(
    refusal("train-local", "", "--resume-from-checkpoint", "x"),
    /^resume_from_checkpoint: "x" .*\(flag --resume-from-checkpoint\)/,
  );
});

test("train-local names all that it leaves undone in one message", () => {
  const message = refusal("train-local", "resume_from_checkpoint: true\nsave_steps: 3\n");
  assert.match(message, /^resume_from_checkpoint: true .*save_steps \(job\.yaml:4\)\.$/);
});

test("train-local takes what asks for nothing, and foreign names at their places", () => {
  for (const line of [
    ...["resume_from_checkpoint: false", "resume_from_checkpoint: null", "save_strategy: 'no'"],
    ...["save_strategy: 'no'\nsave_steps: 5\nsave_total_limit: 1", "save_only_model: false"],
    ...["eval_strategy: steps\neval_steps: 2\neval_on_start: true", "sample_prompt: hi"],
    // It keeps the best weights itself, so that no checkpoint has to go with an evaluation.
    "load_best_model_at_end: true\neval_strategy: epoch\nmetric_for_best_model: loss",
    "early_stopping_patience: 2\neval_strategy: epoch\ngreater_is_better: true",
    ...["workers: 2", "metrics_port: null", "metrics_port: 0", "logging_steps: 1"],
  ]) {
    assert.deepEqual(resolve("train-local", line).warnings, [], line);
  }
  assert.match(
    refusal("train-local", "auto_resume_from_checkpoints: true"),
    /job\.yaml:3, given as auto_resume_from_checkpoints/,
  );
});

test("train-local tells of keys that change no result, and of another tool's defaults", () => {
  for (const line of [
    ...["metrics_port: 9090", "logging_steps: 20", "reducer_shards: 4", "lease_timeout_ms: 2000"],
    ...["insecure: true", "disable_tqdm: false", "listen: 0.0.0.0:1", "deterministic: false"],
  ]) {
    const [warning = "", ...more] = resolve("train-local", line).warnings;
    assert.match(
      warning,
      new RegExp(`^job\\.yaml:3: ${line.split(":")[0]} has no effect: train-lo`),
    );
    assert.deepEqual(more, []);
  }
  const { warnings } = resolve("train-local", "micro_batch_size: 2");
  assert.match(warnings.join("\n"), /default of axolotl: save_strategy has no effect/);
});

test("a coordinator tells of what its workers have to be told", () => {
  const told = (yaml: string): string => resolve("coordinator", yaml).warnings.join("\n");
  assert.match(told("use_cpu: true"), /^job\.yaml:3: use_cpu has no .*lockstep worker --use-cpu$/);
  assert.match(told("no_cuda: true"), /job\.yaml:3, given as no_cuda: use_cpu has no effect/);
  assert.match(told("engine_module: ./e.js"), /worker --engine-module FILE/);
  assert.match(told("max_worker_restarts: 1"), /no effect: a coordinator starts no workers/);
  assert.deepEqual(resolve("train", "use_cpu: true\nmax_worker_restarts: 1").warnings, []);
});

test("keys that have nothing to do beside others are told of, by what leaves them without effect", () => {
  const told = (yaml: string): string => resolve("train", yaml).warnings.join("\n");
  const processes = "reducer_processes: 4\nreducer_replicas: 2\n";
  assert.match(
    told(`${processes}reducer_shards: 3`),
    /^job\.yaml:5: reducer_shards has no effect: .*reducer_processes makes 2 shards of 2 copies$/,
  );
  assert.match(
    told("reducers: a:1\nreducer_shards: 1"),
    /^job\.yaml:4: reducer_shards has no effect: .*reducers makes 1 shard$/,
  );
  assert.match(told("reducer_timeout_ms: 5000"), /reducer_timeout_ms has no effect: .* threads/);
  assert.match(
    told("reducer_processes: 2\nreducer_compare_steps: 1"),
    /reducer_compare_steps has no effect: .*one copy/,
  );
  assert.match(told("metrics_port: null\nmetrics_host: '::1'"), /metrics_host has no effect/);
  for (const yaml of [
    ...["reducer_shards: 4", "reducer_processes: 2\nreducer_timeout_ms: 5000", processes],
    ...[`${processes}reducer_compare_steps: 7`, "metrics_port: 9090\nmetrics_host: '::1'"],
    // Another value than the default asks for something.
    "reducer_processes: 2\nreducer_shards: 2",
  ]) {
    assert.equal(told(yaml), "", yaml);
  }
  // Once is enough, of a key that the command does not act on at all.
  const { warnings } = resolve("train-local", "reducer_timeout_ms: 5000");
  assert.equal(warnings.length, 1);
});
