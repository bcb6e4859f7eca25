import assert from "node:assert/strict";
import { test } from "node:test";
import { parseFlags } from "#lib/config/index";
import { isSwitchKey, isTextKey, type Resolution, resolveConfig } from "#lib/config/resolve";
import { parseConfigText } from "#lib/config/yaml-file";

const base = "model_name_or_path: m\ndataset: sotu\n";

function resolve(yaml: string, ...args: string[]): Resolution {
  const flags = parseFlags(args, isSwitchKey, isTextKey);
  return resolveConfig(parseConfigText(base + yaml, "job.yaml"), flags.values, { cpuCount: 8 });
}

test("arguments that a schedule does not have are refused before any data is read, with their place", () => {
  for (const [name, kwargs] of [
    ["linear", "{num_cycles: 1}"],
    ["cosine", "{num_cycles: many}"],
    ["cosine_with_min_lr", "{num_cycles: 1}"],
    ["warmup_stable_decay", "{num_decay_steps: -5}"],
    ["reduce_lr_on_plateau", "{num_cycles: 1}"],
  ]) {
    const yaml = `lr_scheduler_type: ${name}\neval_strategy: steps\nlr_scheduler_kwargs: ${kwargs}`;
    assert.throws(() => resolve(yaml), {
      code: "E_CONFIG_INVALID",
      message: /^lr_scheduler_kwargs must be .* \(job\.yaml:5\)/,
    });
  }
});

test("a rule over several keys names the place of the key that it refuses", () => {
  assert.throws(() => resolve("seed: 1\nmax_steps: 0"), { message: /\(job\.yaml:4\)/ });
  assert.throws(() => resolve("", "--max_shard_size", "huge"), {
    message: /\(flag --max_shard_size\)/,
  });
});

test("an epsilon that is 0 in float32 would make weights without gradients no numbers, and is refused", () => {
  for (const yaml of [
    "adam_epsilon: 0",
    "adam_epsilon: 1.0e-60",
    "optim: adafactor\noptim_args: eps1=1e-60",
  ]) {
    assert.throws(() => resolve(yaml), { code: "E_CONFIG_INVALID" }, yaml);
  }
  assert.equal(resolve("adam_epsilon: 1.0e-30").config.adam_epsilon, 1e-30);
});

test("adafactor is a switch, as on the command line of transformers' scripts", () => {
  assert.equal(resolve("", "--adafactor").config.optim, "adafactor");
  assert.equal(resolve("optim: sgd", "--no-adafactor").config.optim, "sgd");
  assert.equal(resolve("optim: sgd", "--adafactor").config.optim, "adafactor");
});
