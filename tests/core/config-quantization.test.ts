import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { type Resolution, resolveConfig } from "#lib/config/resolve";
import { parseConfigText } from "#lib/config/yaml-file";
import { failure } from "#tests/support/failure";

/** A minimal job with these keys; JSON is YAML. */
const resolve = (keys: Readonly<Record<string, unknown>>): Resolution =>
  resolveText(JSON.stringify({ model_name_or_path: "m", dataset: "sotu", ...keys }));

const resolveText = (text: string): Resolution =>
  resolveConfig(parseConfigText(text, "job.yaml"), new Map(), { cpuCount: 8 });

test("QLoRA is read under the names of LLaMA-Factory, axolotl, TRL and transformers", () => {
  const keys = (config: Resolution["config"]): unknown[] => [
    ...[config.use_peft, config.load_in_4bit],
    ...[config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant],
  ];
  const double = [true, true, "nf4", true];
  const example = readFileSync("tests/fixtures/configs/llamafactory_qlora_sft.yaml", "utf8");
  assert.deepEqual(keys(resolveText(example).config), double);
  const ofLlamaFactory = { stage: "sft", finetuning_type: "lora", quantization_bit: 4 };
  // Its default quantises the scales too, and so does axolotl's QLoRA; transformers' does not.
  assert.deepEqual(keys(resolve(ofLlamaFactory).config), double);
  const plain = { ...ofLlamaFactory, double_quantization: false };
  assert.deepEqual(keys(resolve(plain).config), [true, true, "nf4", false]);
  assert.deepEqual(keys(resolve({ adapter: "qlora", load_in_4bit: true }).config), double);
  assert.deepEqual(keys(resolve({ adapter: "qlora" }).config), double);
  const named = resolve({ finetuning_type: "qlora" });
  assert.deepEqual(keys(named.config), double);
  assert.equal(named.config.finetuning_type, "lora");
  assert.match(named.warnings.join("\n"), /finetuning_type: qlora says load_in_4bit: true too/);
  const trl = { use_peft: true, load_in_4bit: true, bnb_4bit_quant_type: "nf4" };
  assert.deepEqual(keys(resolve(trl).config), [true, true, "nf4", false]);
  assert.deepEqual(keys(resolve({ ...trl, use_bnb_nested_quant: true }).config), double);
});

test("what is not computed of quantisation is refused by name", () => {
  const message = (values: object) =>
    failure(() => resolve({ use_peft: true, load_in_4bit: true, ...values }));
  assert.match(message({ bnb_4bit_quant_type: "fp4" }), /^E_CONFIG_INVALID: bnb_4bit_quant_type/);
  assert.match(message({ load_in_8bit: true }), /^E_CONFIG_UNSUPPORTED: load_in_8bit: true/);
  assert.match(message({ quantization_bit: 8 }), /^E_CONFIG_UNSUPPORTED: quantization_bit: 8/);
  assert.match(
    message({ quantization_method: "hqq" }),
    /^E_CONFIG_UNSUPPORTED: quantization_method: "hqq"/,
  );
  assert.match(
    message({ bnb_config_kwargs: { bnb_4bit_quant_type: "fp4" } }),
    /^E_CONFIG_UNSUPPORTED: bnb_config_kwargs/,
  );
  assert.match(
    failure(() => resolve({ adapter: "qlora", load_in_4bit: false })),
    /^E_CONFIG_CONFLICT: .*adapter and load_in_4bit/,
  );
  assert.match(
    failure(() => resolve({ finetuning_type: "qlora", load_in_4bit: false })),
    /^E_CONFIG_CONFLICT: .*finetuning_type and load_in_4bit/,
  );
  assert.match(
    failure(() => resolve({ load_in_4bit: true })),
    /^E_CONFIG_MISSING_KEY: .*use_peft.*load_in_4bit .* is an option of LoRA/,
  );
});

test("what is asked of a frozen base is refused beside another way, and told where 4 bits are off", () => {
  for (const [keys, choice] of [
    [{ finetuning_type: "full", quantization_bit: 4 }, /load_in_4bit and finetuning_type.*is full/],
    [{ finetuning_type: "prompt", load_in_4bit: true }, /load_in_4bit and finetuning_type/],
    [{ finetuning_type: "freeze", adapter_name_or_path: "a" }, /adapter_name_or_path and finetun/],
    [{ use_peft: false, adapter_name_or_path: "a" }, /adapter_name_or_path and use_peft.*is false/],
  ] as const) {
    const message = failure(() => resolve(keys));
    assert.match(message, /^E_CONFIG_CONFLICT/);
    assert.match(message, choice);
  }
  const { warnings } = resolve({ use_peft: true, double_quantization: true });
  assert.match(
    warnings.join("\n"),
    /bnb_4bit_use_double_quant has no effect: load_in_4bit is false/,
  );
  const on = resolve({ use_peft: true, load_in_4bit: true, bnb_4bit_use_double_quant: true });
  assert.doesNotMatch(on.warnings.join("\n"), /no effect/);
});
