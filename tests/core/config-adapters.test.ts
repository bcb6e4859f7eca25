import assert from "node:assert/strict";
import { test } from "node:test";
import { isGiven } from "#lib/config/index";
import { type Resolution, resolveConfig } from "#lib/config/resolve";
import { parseConfigText } from "#lib/config/yaml-file";
import { failure } from "#tests/support/failure";

/** A minimal job with these keys; JSON is YAML. */
function resolve(keys: Readonly<Record<string, unknown>>): Resolution {
  const text = JSON.stringify({ model_name_or_path: "m", dataset: "sotu", ...keys });
  return resolveConfig(parseConfigText(text, "job.yaml"), new Map(), { cpuCount: 8 });
}

test("the whole family of adapters is read under the names of other tools", () => {
  const chosen = {
    lora_layers_to_transform: [3],
    lora_layers_pattern: ["layers"],
    use_dora: true,
    init_lora_weights: "gaussian",
    adapter_name_or_path: "runs/a",
  };
  const read = (given: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> => {
    const config: Readonly<Record<string, unknown>> = resolve(given).config;
    return Object.fromEntries(Object.keys(chosen).map((key) => [key, config[key]]));
  };
  const axolotl = {
    ...{ adapter: "lora", peft_layers_to_transform: 3, peft_layers_pattern: "layers" },
    ...{ peft_use_dora: true, peft_init_lora_weights: "gaussian", lora_model_dir: "runs/a" },
  };
  assert.deepEqual(read(axolotl), chosen);
  const peft = {
    ...{ use_peft: true, layers_to_transform: [3], layers_pattern: ["layers"], use_dora: true },
    ...{ init_lora_weights: "gaussian", adapter_name_or_path: "runs/a" },
  };
  assert.deepEqual(read(peft), chosen);
  const patterns = { rank_pattern: { q_proj: 2 }, alpha_pattern: {}, exclude_modules: "up_proj" };
  const { config } = resolve({ use_peft: true, ...patterns });
  assert.deepEqual({ ...config.lora_rank_pattern }, { q_proj: 2 });
  assert.deepEqual([config.lora_alpha_pattern, config.lora_exclude_modules], [null, ["up_proj"]]);
  assert.match(
    failure(() => resolve({ use_peft: true, init_lora_weights: "pissa" })),
    /^E_CONFIG_INVALID: init_lora_weights/,
  );
});

test("an adapter of LLaMA-Factory that is trained further keeps its own rank and targets", () => {
  const file = { stage: "sft", finetuning_type: "lora", adapter_name_or_path: "saves/a" };
  const { config } = resolve(file);
  assert.deepEqual([config.use_peft, config.adapter_name_or_path], [true, "saves/a"]);
  for (const key of ["lora_r", "lora_alpha", "lora_target_modules"] as const) {
    assert.equal(isGiven(config, key), false, key);
  }
  assert.match(
    failure(() => resolve({ ...file, create_new_adapter: true })),
    /create_new_adapter: true .*merge-adapter/,
  );
});
