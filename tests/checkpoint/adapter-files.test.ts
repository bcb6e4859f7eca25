import assert from "node:assert/strict";
import { test } from "node:test";
import type { ModelTensor } from "#lib/checkpoint/index";
import { type LoraConfig, writeAdapterDirectory } from "#lib/checkpoint/peft/index";
import { baseModel, huggingface, openAdapter, tensorsOf } from "./adapter-support.js";
import { rejectsWith, temporaryDirectory } from "./support.js";

test("an adapter's file has what its configuration chooses, no more and no less", async (t) => {
  const model = await baseModel("base_llama", "llama");
  const all = await openAdapter(t, huggingface("ad_llama_all-linear"));
  const tensors = tensorsOf(all);
  const of = (ending: string) => tensors.filter(({ name }) => name.includes(`${ending}.lora_`));
  const read = async (
    target_modules: readonly string[],
    written: readonly ModelTensor[],
    more = {},
  ) => {
    const directory = await temporaryDirectory(t);
    const config: LoraConfig = { ...all.config, target_modules, ...more };
    await writeAdapterDirectory(directory, { config, tensors: written, dtype: "float32" });
    return openAdapter(t, directory);
  };
  const both = ["q_proj", "k_proj"];
  (await read(both, both.flatMap(of))).checkAgainst(model);
  for (const [targets, written, message] of [
    [both, of("q_proj"), /k_proj is chosen by adapter_config.json, and the file has no matrices/],
    [["q_proj"], both.flatMap(of), /k_proj has matrices in the file, and .* does not choose it/],
    [["k_proj"], of("q_proj"), /k_proj is chosen/],
  ] as const) {
    const adapter = await read(targets, written);
    assert.throws(() => adapter.checkAgainst(model), { code: "E_ADAPTER_TENSOR", message });
  }
  // Exclusions choose too.
  const excluding = await read(both, both.flatMap(of), { exclude_modules: ["k_proj"] });
  assert.throws(() => excluding.checkAgainst(model), /k_proj has matrices in the file/);
  const headless = await read(["q_proj"], of("q_proj"), { modules_to_save: ["lm_head"] });
  assert.throws(
    () => headless.checkAgainst(model),
    /lm_head.weight belongs to modules_to_save, and the file does not have it/,
  );
});

test("a tensor that holds no finite number is refused where it is read", async (t) => {
  const adapter = await openAdapter(t, huggingface("ad_llama_default"));
  const directory = await temporaryDirectory(t);
  const [first, ...rest] = tensorsOf(adapter);
  assert.ok(first !== undefined);
  const spoiled = { ...first, read: async () => (await first.read()).fill(Number.NaN, 5, 6) };
  const content = {
    config: adapter.config,
    tensors: [spoiled, ...rest],
    dtype: "bfloat16" as const,
  };
  await writeAdapterDirectory(directory, content);
  const read = await openAdapter(t, directory);
  const { path = "" } = read.modules.find(({ path: each }) => first.name.includes(each)) ?? {};
  await rejectsWith(
    read.readPart(path, "A"),
    "E_TENSOR_NOT_FINITE",
    /holds NaN, which is no finite/,
  );
  assert.equal((await read.readPart(path, "B")).length > 0, true);
});

test("biases that were trained are read, those of adapted modules from within peft's wrapper", async (t) => {
  const model = await baseModel("base_gpt2", "gpt2");
  const own = await openAdapter(t, huggingface("ad_gpt2_default"));
  const { path } = own.modules[0] ?? { path: "" };
  const other = path.replace(/attn\.c_attn$/, "mlp.c_fc");
  const biasOf = (name: string, key = name) => {
    const { shape } = model.weights.find((weight) => weight.name === `${name}.bias`) ?? {
      shape: [],
    };
    const values = new Float32Array(shape[0] ?? 0).fill(3);
    return { name: `base_model.model.${key}.bias`, shape, read: () => values };
  };
  const wrapped = biasOf(path, `${path}.base_layer`);
  const read = async (bias: LoraConfig["bias"], ...biases: ModelTensor[]) => {
    const directory = await temporaryDirectory(t);
    const tensors = [...tensorsOf(own), ...biases];
    const content = { config: { ...own.config, bias }, tensors, dtype: "float32" as const };
    await writeAdapterDirectory(directory, content);
    return openAdapter(t, directory);
  };
  const adapter = await read("all", wrapped, biasOf(other));
  adapter.checkAgainst(model);
  assert.deepEqual(adapter.savedWeights, [`${path}.bias`, `${other}.bias`].sort());
  assert.ok((await adapter.readSaved(`${path}.bias`)).every((value) => value === 3));
  assert.deepEqual((await read("lora_only", wrapped)).savedWeights, [`${path}.bias`]);
  const misfit = /belongs neither to LoRA nor to modules_to_save/;
  await rejectsWith(read("lora_only", wrapped, biasOf(other)), "E_ADAPTER_TENSOR", misfit);
  await rejectsWith(read("none", wrapped), "E_ADAPTER_TENSOR", misfit);
  await rejectsWith(read("all", wrapped, biasOf(path)), "E_ADAPTER_TENSOR", /is there twice/);
});
