import assert from "node:assert/strict";
import { copyFile, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { writeSafetensors } from "#lib/checkpoint/index";
import {
  AdapterDirectory,
  adaptedModules,
  completeLoraConfig,
  defaultLoraConfig,
  type LoraConfig,
  parseLoraConfig,
  rankOf,
  scaleOf,
  writeAdapterDirectory,
} from "#lib/checkpoint/peft/index";
import { adapterFacts } from "#lib/models/facts";
import { baseModel, huggingface, openAdapter, tensorsOf } from "./adapter-support.js";
import { rejectsWith, temporaryDirectory } from "./support.js";

/** Adapters that peft 0.21.2 wrote, with the model that they are for. */
const adapters: readonly [directory: string, base: string, modelType: string][] = [
  ...(["default", "all-linear"] as const).flatMap((targets): [string, string, string][] => [
    [`ad_llama_${targets}`, "base_llama", "llama"],
    [`ad_qwen2_${targets}`, "base_qwen2", "qwen2"],
    [`ad_gpt2_${targets}`, "base_gpt2", "gpt2"],
    [`ad_bert_seqcls_${targets}`, "base_bert_seqcls", "bert"],
  ]),
  ["min", "base_gpt2", "gpt2"],
  ["out_lora/final", "base_gpt2", "gpt2"],
  ["out_lora/checkpoint-5", "base_gpt2", "gpt2"],
  ["out_lora/checkpoint-10", "base_gpt2", "gpt2"],
];

const sorted = (value: unknown): unknown =>
  Array.isArray(value) ? value.map(String).sort((a, b) => (a < b ? -1 : 1)) : value;

for (const [name, base, modelType] of adapters) {
  test(`${name} of peft is read, fits its base, and is written again with the same bytes`, async (t) => {
    const adapter = await openAdapter(t, huggingface(name));
    const model = await baseModel(base, modelType);
    adapter.checkAgainst(model);
    const paths = adapter.modules.map(({ path }) => path);
    assert.deepEqual(
      sorted(adaptedModules(adapter.config, model).map(({ path }) => path)),
      sorted(paths),
    );

    const directory = await temporaryDirectory(t);
    const content = {
      config: adapter.config,
      tensors: tensorsOf(adapter),
      dtype: "float32" as const,
    };
    await writeAdapterDirectory(directory, content);
    const read = (file: string, place = directory): Promise<string> =>
      readFile(join(place, file), "latin1");
    assert.equal(
      await read("adapter_model.safetensors"),
      await read("adapter_model.safetensors", huggingface(name)),
    );
    const ours = await read("adapter_config.json");
    if (name === "min") return;
    // Line for line what peft wrote, without the keys that only its newest version knows.
    const theirs = (await read("adapter_config.json", huggingface(name))).split("\n");
    const lines = new Set(theirs.map((line) => line.replace(/,$/, "")));
    for (const line of ours.split("\n")) assert.ok(lines.has(line.replace(/,$/, "")), line);
    assert.equal(Object.keys(JSON.parse(ours) as object).length, 23);
    assert.ok(!ours.endsWith("\n"));
  });
}

test("defaults, all-linear and a classifier's head are filled in as peft does", async (t) => {
  for (const [name, base, modelType] of adapters.slice(0, 8)) {
    const expected = (await openAdapter(t, huggingface(name))).config;
    const model = await baseModel(base, modelType);
    const completed = completeLoraConfig(
      {
        ...defaultLoraConfig,
        r: 4,
        lora_dropout: 0.05,
        task_type: expected.task_type,
        target_modules: name.endsWith("all-linear") ? "all-linear" : null,
      },
      model,
    );
    assert.deepEqual(
      { ...completed, inference_mode: true, target_modules: sorted(completed.target_modules) },
      { ...expected, target_modules: sorted(expected.target_modules) },
      name,
    );
  }
  const distilbert = { facts: adapterFacts({ model_type: "distilbert" }), weights: [] };
  assert.throws(() => completeLoraConfig(defaultLoraConfig, distilbert), /has no usual ones/);
});

test("targets, ranks and scales of three layers are those of peft", () => {
  const projections = ["q", "k", "v", "o"].map((p) => `self_attn.${p}_proj`);
  const weights = [0, 1, 2].flatMap((layer) =>
    [...projections, "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"].map((part) => ({
      name: `model.layers.${layer}.${part}.weight`,
      shape: [16, 16],
    })),
  );
  const model = {
    facts: adapterFacts({ model_type: "llama" }),
    weights: [...weights, { name: "lm_head.weight", shape: [32, 16] }],
  };
  // Made with get_peft_model of peft 0.21.2 on a Llama of three layers: path, rank, scale.
  const layer = (n: number, part: string, r = 8, scale = 1): [string, number, number] => {
    return [`model.layers.${n}.${part}`, r, scale];
  };
  const cases: readonly [Partial<LoraConfig>, readonly [string, number, number][]][] = [
    [
      { target_modules: ["q_proj", "up_proj"], layers_to_transform: [0, 2] },
      [0, 2].flatMap((n) => [layer(n, "self_attn.q_proj"), layer(n, "mlp.up_proj")]),
    ],
    [
      { target_modules: ["q_proj"], layers_to_transform: 1, layers_pattern: "layers" },
      [layer(1, "self_attn.q_proj")],
    ],
    [
      { target_modules: ".*\\.(1|2)\\.mlp\\.(gate|down)_proj" },
      [1, 2].flatMap((n) => [layer(n, "mlp.gate_proj"), layer(n, "mlp.down_proj")]),
    ],
    [
      {
        target_modules: "all-linear",
        exclude_modules: ["mlp.up_proj", "q_proj", "k_proj", "v_proj", "o_proj"],
      },
      [0, 1, 2].flatMap((n) => [layer(n, "mlp.gate_proj"), layer(n, "mlp.down_proj")]),
    ],
    [
      {
        target_modules: ["q_proj", "v_proj"],
        use_rslora: true,
        r: 4,
        lora_alpha: 16,
        rank_pattern: { "layers\\.1\\.self_attn\\.q_proj": 2, v_proj: 8 },
        alpha_pattern: { "0.self_attn.v_proj": 32 },
      },
      [
        layer(0, "self_attn.q_proj", 4, 8),
        layer(0, "self_attn.v_proj", 8, 11.31370849898476),
        layer(1, "self_attn.q_proj", 2, 11.31370849898476),
        layer(1, "self_attn.v_proj", 8, 5.65685424949238),
        layer(2, "self_attn.q_proj", 4, 8),
        layer(2, "self_attn.v_proj", 8, 5.65685424949238),
      ],
    ],
    [
      { target_modules: ["q_proj", "lm_head"], modules_to_save: ["lm_head", "layers.0"] },
      [layer(1, "self_attn.q_proj"), layer(2, "self_attn.q_proj")],
    ],
  ];
  for (const [change, expected] of cases) {
    const config = completeLoraConfig({ ...defaultLoraConfig, ...change }, model);
    const found = adaptedModules(config, model).map(({ path }) => [
      path,
      rankOf(config, path),
      scaleOf(config, path),
    ]);
    assert.deepEqual(found, expected);
  }
  const nothing = { ...defaultLoraConfig, target_modules: ["query"] };
  assert.throws(() => adaptedModules(nothing, model), /matches no linear module/);
});

test("a minimal configuration loads; unknown keys are named", () => {
  const { config, warnings } = parseLoraConfig(
    { peft_type: "LORA", target_modules: ["c_attn"], zzz: 1, peft_version: "0.1" },
    "a.json",
  );
  assert.deepEqual(config, { ...defaultLoraConfig, target_modules: ["c_attn"] });
  assert.deepEqual(warnings, ["a.json: the key zzz is unknown and has no effect"]);
});

test("what is neither LoRA nor DoRA is refused by name, and so are wrong values", () => {
  const cases: readonly [object, RegExp][] = [
    [{ peft_type: "LOHA" }, /peft_type LOHA, which is not supported/],
    [{ peft_type: undefined }, /peft_type has to be "LORA", not nothing/],
    [{ use_qalora: true }, /use_qalora \(QALoRA/],
    [{ alora_invocation_tokens: [1] }, /aLoRA/],
    [{ init_lora_weights: "pissa_niter_16" }, /pissa_niter_16 \(which changes more than where/],
    [{ init_lora_weights: "loftq" }, /loftq/],
    [{ trainable_token_indices: [5] }, /tokens of an embedding/],
    [{ layer_replication: [[0, 4]] }, /repeated/],
    [{ r: 0 }, /r has to be a whole number of at least 1, not 0/],
    [{ r: "8" }, /not "8"/],
    [{ lora_dropout: 2 }, /from 0 to 1/],
    [{ bias: "some" }, /one of none, all, lora_only/],
    [{ target_modules: [1] }, /target_modules has to be/],
    [{ target_modules: "(a)\\1b" }, /a regular expression of Python, not .*, whose \\1 repeats/],
    [{ layers_to_transform: [0], layers_pattern: "h|layers" }, /parentheses around the choices/],
    [{ lora_alpha: JSON.parse("1e999") }, /lora_alpha has to be a number above 0 that float32 has/],
    [{ lora_alpha: 1e39 }, /that float32 has, not 1e\+39/],
    [{ alpha_pattern: { q: 1e39 } }, /that float32 has/],
    [
      {
        rank_pattern: Object.fromEntries(
          Array.from({ length: 60 }, (_, i) => [`(.?){500}${i}`, 2]),
        ),
      },
      /rank_pattern has to be shorter patterns, or fewer of them/,
    ],
    [{ rank_pattern: { "(": 1 } }, /a regular expression/],
    [{ rank_pattern: { q: -1 } }, /numbers above 0/],
  ];
  for (const [change, message] of cases) {
    const json = { peft_type: "LORA", ...change };
    assert.throws(() => parseLoraConfig(json, "adapter_config.json"), message);
  }
});

test("an adapter that does not fit is refused with both sizes", async (t) => {
  const adapter = await openAdapter(t, huggingface("ad_llama_default"));
  const model = await baseModel("base_llama", "llama");
  const wider = {
    ...model,
    weights: model.weights.map(({ name, shape }) => ({
      name,
      shape: name.endsWith("v_proj.weight") ? [shape[0] as number, 24] : shape,
    })),
  };
  assert.throws(
    () => adapter.checkAgainst(wider),
    /v_proj maps 16 to 8 features, in the base model 24 to 8/,
  );
  assert.throws(() => adapter.checkAgainst({ ...model, weights: [] }), /is no linear module/);
  const classifier = await openAdapter(t, huggingface("ad_bert_seqcls_default"));
  const bert = await baseModel("base_bert_seqcls", "bert");
  const weights = bert.weights.map((w) =>
    w.name === "classifier.bias" ? { ...w, shape: [5] } : w,
  );
  assert.throws(() => classifier.checkAgainst({ ...bert, weights }), /has shape \[3\], .* \[5\]/);
});

test("damaged weights are refused", async (t) => {
  const directory = await temporaryDirectory(t);
  await rejectsWith(AdapterDirectory.open(directory), "E_FILE_NOT_FOUND", /adapter_config/);
  await copyFile(huggingface("min", "adapter_config.json"), join(directory, "adapter_config.json"));
  await writeFile(join(directory, "adapter_model.bin"), "");
  await rejectsWith(
    AdapterDirectory.open(directory),
    "E_MODEL_DIRECTORY",
    /pickle .*save it again/,
  );
  const cases: readonly [Record<string, number[]>, RegExp][] = [
    [{ "x.lora_A.weight": [4, 2] }, /does not begin with base_model/],
    [{ "base_model.model.x.lora_A.weight": [4, 2] }, /x lacks lora_B/],
    [
      { "base_model.model.x.lora_A.weight": [3, 2], "base_model.model.x.lora_B.weight": [2, 3] },
      /\[3, 2\] and \[2, 3\], which are not of rank 4/,
    ],
    [{ "base_model.model.x.weight": [4, 2] }, /holds no lora_A/],
    [{ "base_model.model.x.lora_magnitude_vector": [2] }, /x lacks lora_A and lora_B/],
    [
      {
        "base_model.model.x.lora_A.weight": [4, 2],
        "base_model.model.x.lora_B.weight": [2, 4],
        "base_model.model.x.lora_magnitude_vector": [2],
      },
      /x has a lora_magnitude_vector, and use_dora is false/,
    ],
    [
      {
        "base_model.model.x.lora_A.weight": [4, 2],
        "base_model.model.x.lora_B.weight": [2, 4],
        "base_model.model.y.weight": [1],
      },
      /y.weight belongs neither to LoRA nor/,
    ],
  ];
  for (const [shapes, message] of cases) {
    const entries = Object.entries(shapes).map(([name, shape]) => ({
      name,
      shape,
      dtype: "F32" as const,
    }));
    await writeSafetensors(join(directory, "adapter_model.safetensors"), entries, (name) => {
      const size = (shapes[name] ?? []).reduce((product, dim) => product * dim, 4);
      return new Uint8Array(size);
    });
    await rejectsWith(AdapterDirectory.open(directory), "E_ADAPTER_TENSOR", message);
  }
  const embedding = [
    { name: "base_model.model.x.lora_embedding_A", shape: [1], dtype: "F32" as const },
  ];
  const file = join(directory, "adapter_model.safetensors");
  await writeSafetensors(file, embedding, () => new Uint8Array(4));
  await rejectsWith(AdapterDirectory.open(directory), "E_ADAPTER_UNSUPPORTED", /lora_embedding_A/);
  const config = join(directory, "adapter_config.json");
  const text = await readFile(config, "utf8");
  await writeFile(config, JSON.stringify({ ...JSON.parse(text), use_dora: true }));
  for (const [size, message] of [
    [undefined, /x has no lora_magnitude_vector, and use_dora is true/],
    [3, /x has magnitudes of shape \[3\] for 2 outputs/],
  ] as const) {
    const shapes = new Map([
      ["base_model.model.x.lora_A.weight", [4, 2]],
      ["base_model.model.x.lora_B.weight", [2, 4]],
      ...(size === undefined
        ? []
        : [["base_model.model.x.lora_magnitude_vector", [size]] as const]),
    ]);
    const entries = [...shapes].map(([name, shape]) => ({ name, shape, dtype: "F32" as const }));
    await writeSafetensors(file, entries, (name) => {
      return new Uint8Array((shapes.get(name) ?? []).reduce((product, dim) => product * dim, 4));
    });
    await rejectsWith(AdapterDirectory.open(directory), "E_ADAPTER_TENSOR", message);
  }
});
