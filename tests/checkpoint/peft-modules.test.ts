import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type BaseModel,
  checkModuleNames,
  checkNoneTwice,
  checkLayers,
  checkPatterns,
  checkPatternsMatch,
  completeLoraConfig,
  defaultLoraConfig,
  formatLoraConfig,
  headTieOf,
  type LoraConfig,
  parseLoraConfig,
} from "#lib/checkpoint/peft/index";
import { isLockstepError } from "#lib/core/errors/index";
import { layOutAdapter } from "#lib/parameters/lora-layout";
import { adapterFacts } from "#lib/models/facts";

/** A Llama of two layers; tied, it has no head of its own. */
function llama({ isTied = false } = {}): BaseModel {
  const layer = (n: number) =>
    [
      ...["q_proj", "k_proj", "v_proj", "o_proj"].map((part) => `self_attn.${part}`),
      ...["gate_proj", "up_proj", "down_proj"].map((part) => `mlp.${part}`),
    ].map((part) => ({ name: `model.layers.${n}.${part}.weight`, shape: [8, 8] }));
  const norms = (n: number) =>
    ["input_layernorm", "post_attention_layernorm"].map((part) => ({
      name: `model.layers.${n}.${part}.weight`,
      shape: [8],
    }));
  const weights = [
    { name: "model.embed_tokens.weight", shape: [32, 8] },
    ...[0, 1].flatMap((n) => [...layer(n), ...norms(n)]),
    { name: "model.norm.weight", shape: [8] },
    ...(isTied ? [] : [{ name: "lm_head.weight", shape: [32, 8] }]),
  ];
  return { facts: adapterFacts({ model_type: "llama" }), weights };
}

const config = (change: Partial<LoraConfig>): LoraConfig => ({ ...defaultLoraConfig, ...change });

function refusal(change: Partial<LoraConfig>, model = llama()): string {
  try {
    checkPatterns(config(change));
    checkModuleNames(config(change), model);
    checkLayers(config(change), model);
    const complete = completeLoraConfig(config(change), model);
    checkNoneTwice(complete, model);
    checkPatternsMatch(complete, model);
  } catch (error) {
    assert.ok(isLockstepError(error), String(error));
    assert.equal(error.code, "E_ADAPTER_MODULE");
    return error.message;
  }
  assert.fail(`${JSON.stringify(change)} is not refused`);
}

test("names that the model has are taken, whole or as last parts", () => {
  for (const change of [
    { target_modules: ["q_proj", "self_attn.v_proj", "model.layers.0.mlp.up_proj"] },
    { target_modules: ".*\\.(q|v)_proj" },
    { target_modules: "model\\.layers\\.\\d\\.mlp\\.gate_proj" },
    { target_modules: "all-linear", modules_to_save: ["embed_tokens", "lm_head", "model.norm"] },
    { target_modules: null, modules_to_save: ["layers.0.mlp"] },
    { target_modules: ["q_proj", "lm_head"], modules_to_save: ["lm_head"] },
  ]) {
    checkPatterns(config(change));
    checkModuleNames(config(change), llama());
    checkNoneTwice(completeLoraConfig(config(change), llama()), llama());
  }
});

test("a name that the model does not have is refused, with the nearest one", () => {
  const both = (name: string) => [
    refusal({ target_modules: ["q_proj", name] }),
    refusal({ modules_to_save: [name] }),
  ];
  for (const [name, near] of [
    ["q_prj", "q_proj"],
    ["embed_token", "embed_tokens"],
    ["lm_haed", "lm_head"],
    ["model.layers.0.self_attn.q_pro", "model.layers.0.self_attn.q_proj"],
  ] as const) {
    for (const message of both(name)) {
      assert.ok(message.includes(`names ${name}, which this llama model does not have`), message);
      assert.ok(message.includes(`did you mean ${near}?`), message);
    }
  }
  for (const name of ["query_key_value", "score", "wte", "layers.7", "model.layers.2.mlp"]) {
    for (const message of both(name)) assert.match(message, /does not have \((there are|did you)/);
  }
  // A head that is the embedding table is no module with weights of its own.
  assert.match(
    refusal({ target_modules: ["score"] }, llama({ isTied: true })),
    /embed_tokens, q_proj/,
  );
});

test("what is no linear module takes no adapter, and is not left out in silence", () => {
  assert.match(
    refusal({ target_modules: ["q_proj", "embed_tokens"] }),
    /embed_tokens, and that takes in model\.embed_tokens, which is an embedding table.*lora_modules_to_save trains it whole/,
  );
  for (const target_modules of [["q_proj", "lm_head"], ".*(q_proj|head)"]) {
    assert.match(
      refusal({ target_modules }),
      /lm_head, which is the output head, to which no adapter is added here|which is the output head/,
    );
  }
  assert.match(refusal({ target_modules: ["norm"] }), /model\.norm, which is no linear module\./);
  assert.match(
    refusal({ target_modules: ["self_attn"] }),
    /no linear module; within it are q_proj, k_proj, v_proj, o_proj/,
  );
  // As in peft, a pattern takes in whatever has that path.
  assert.match(refusal({ target_modules: ".*self_attn.*" }), /model\.layers\.0\.self_attn, which/);
  assert.match(refusal({ target_modules: ".*" }), /takes in model, which is no linear module/);
});

test("patterns that are none, that do not end, or that mean another thing in Python are refused", () => {
  assert.match(refusal({ target_modules: "(" }), /no regular expression/);
  assert.match(refusal({ target_modules: "(?P<a>q)_proj" }), /no regular expression/);
  assert.match(refusal({ target_modules: "(a+)\\1b" }), /repeats what was met/);
  assert.match(refusal({ target_modules: "\\A.*q_proj\\Z" }), /whose \\A is not known/);
  assert.match(refusal({ target_modules: "a".repeat(5_000) }), /more than 4096 characters/);
});

test("layers, exclusions and patterns that nothing has an adapter of are refused by their keys", () => {
  const q = { target_modules: ["q_proj"] };
  for (const [change, message] of [
    [
      { ...q, layers_to_transform: [0, 2] },
      /lora_layers_to_transform names 2, a layer that the model does not have \(there are 0 to 1\)/,
    ],
    [
      { ...q, layers_to_transform: 0, layers_pattern: "blocks" },
      /lora_layers_pattern "blocks" finds no layers at all/,
    ],
    [
      { target_modules: ["layers.0.mlp.up_proj"], layers_to_transform: [0, 1] },
      /lora_layers_to_transform names 1, a layer in which there is none of the targets/,
    ],
    [{ ...q, exclude_modules: ["v_prj"] }, /lora_exclude_modules names v_prj, which .*v_proj\?/],
    [{ ...q, exclude_modules: ["norm"] }, /lora_exclude_modules names norm, which is no linear/],
    [{ ...q, exclude_modules: "(" }, /lora_exclude_modules names \(, which is no regular/],
    [{ ...q, rank_pattern: { v_proj: 4 } }, /lora_rank_pattern names v_proj, which fits none of/],
    [
      { ...q, alpha_pattern: { "(?i)q": 4 } },
      /lora_alpha_pattern names \(\?i\)q, which is no regular/,
    ],
  ] as const) {
    assert.match(refusal(change), message);
  }
  for (const [change, message] of [
    [{ ...q, layers_pattern: ["layers"] }, /lora_layers_pattern.*is not set/],
    [{ target_modules: ".*q_proj", layers_to_transform: 1 }, /names the layers itself/],
  ] as const) {
    assert.throws(() => checkPatterns(config(change)), message);
  }
});

test("all-linear in some layers is written as the paths of those layers", () => {
  const complete = completeLoraConfig(
    config({
      ...{ target_modules: "all-linear", layers_to_transform: [1] },
      exclude_modules: ["self_attn.q_proj", "k_proj", "v_proj", "o_proj"],
    }),
    llama(),
  );
  assert.deepEqual(complete.target_modules, [
    "model.layers.1.mlp.down_proj",
    "model.layers.1.mlp.gate_proj",
    "model.layers.1.mlp.up_proj",
  ]);
  assert.equal(complete.layers_to_transform, null);
});

test("a module is trained whole once, or has an adapter", () => {
  assert.match(
    refusal({ modules_to_save: ["layers.0", "layers.0.mlp"] }),
    /layers\.0\.mlp, which lies in model\.layers\.0, which is named too/,
  );
  // peft saves every path that ends like the name: all projections.
  assert.match(
    refusal({ target_modules: ["q_proj"], modules_to_save: ["_proj"] }),
    /q_proj, which ends like one of lora_modules_to_save, _proj/,
  );
});

test("what is saved whole is what peft's endings take in", () => {
  const saved = (...names: string[]): string[] => {
    const complete = completeLoraConfig(
      config({ target_modules: ["q_proj"], modules_to_save: names }),
      llama(),
    );
    const { trained } = layOutAdapter(complete, llama(), {
      wireDtype: "float32",
      frozenDtype: "float32",
    });
    return trained.tensors.map(({ name }) => name).filter((name) => !name.includes("lora_"));
  };
  // Made with get_peft_model of peft 0.21.2: "norm" is the end of every norm of a Llama.
  assert.deepEqual(saved("norm").sort(), [
    ...[0, 1].flatMap((n) => [
      `model.layers.${n}.input_layernorm.weight`,
      `model.layers.${n}.post_attention_layernorm.weight`,
    ]),
    "model.norm.weight",
  ]);
  assert.deepEqual(saved("model.norm"), ["model.norm.weight"]);
  assert.deepEqual(saved("head"), ["lm_head.weight"]);
  assert.equal(saved("layers.1.mlp").length, 3);
});

test("a pattern is saved as the paths that it takes in", () => {
  const complete = completeLoraConfig(config({ target_modules: ".*\\.1\\..*(q|k)_proj" }), llama());
  assert.deepEqual(complete.target_modules, [
    "model.layers.1.self_attn.k_proj",
    "model.layers.1.self_attn.q_proj",
  ]);
});

test("a tied head stays one with its table where neither is trained, or where it is asked to", () => {
  const tied = llama({ isTied: true });
  const tie = (change: Partial<LoraConfig>) =>
    headTieOf(config(change), tied, "model.embed_tokens");
  assert.equal(tie({ target_modules: "all-linear" }), "untouched");
  assert.equal(tie({ target_modules: ["q_proj"], modules_to_save: ["model.norm"] }), "untouched");
  for (const names of [
    ["embed_tokens"],
    ["lm_head"],
    ["model.embed_tokens", "lm_head"],
    ["head"],
  ]) {
    assert.equal(tie({ modules_to_save: names }), "untied");
  }
  for (const targets of [["q_proj", "lm_head"], "lm_head|.*q_proj"]) {
    assert.equal(tie({ target_modules: targets }), "untied");
    assert.throws(() => tie({ target_modules: targets, ensure_weight_tying: true }), /not here/);
  }
  assert.equal(tie({ modules_to_save: ["lm_head"], ensure_weight_tying: true }), "tied");
  // peft goes by two names.
  assert.throws(
    () => tie({ modules_to_save: ["tokens"], ensure_weight_tying: true }),
    /does not tie under that name; write lm_head/,
  );
});

test("GPT-2's table and head are tied under other names", () => {
  const model = {
    facts: adapterFacts({ model_type: "gpt2" }),
    weights: [
      { name: "transformer.h.0.attn.c_attn.weight", shape: [8, 24] },
      { name: "transformer.wpe.weight", shape: [16, 8] },
      { name: "transformer.wte.weight", shape: [32, 8] },
    ],
  };
  const tie = (names: string[], ensure_weight_tying = false) =>
    headTieOf(config({ modules_to_save: names, ensure_weight_tying }), model, "transformer.wte");
  assert.deepEqual(
    [tie(["wte"]), tie(["lm_head"]), tie(["wpe"])],
    ["untied", "untied", "untouched"],
  );
  assert.equal(tie(["lm_head"], true), "tied");
  assert.throws(() => tie(["wte"], true), /write lm_head/);
});

test("ensure_weight_tying is written where it is set, and read again", () => {
  const plain = formatLoraConfig(config({ target_modules: ["q_proj"] }));
  assert.ok(!plain.includes("ensure_weight_tying"));
  const set = config({ target_modules: ["q_proj"], ensure_weight_tying: true });
  const read = parseLoraConfig(JSON.parse(formatLoraConfig(set)), "a.json");
  assert.deepEqual(read, { config: set, warnings: [] });
});
