import assert from "node:assert/strict";
import { test } from "node:test";
import { isLockstepError } from "#lib/core/errors/index";
import { createModel, type Model, resolveWeights } from "#lib/models/index";
import { ConfigReader } from "#lib/models/config-reader";
import { modelDropoutRates } from "#lib/models/dropout-rates";
import type { DecoderConfig } from "#lib/models/decoder/config";
import { parseGemma2Config } from "#lib/models/gemma2/config";
import { parseGemma3Config } from "#lib/models/gemma3/config";
import { parseMistralConfig } from "#lib/models/mistral/config";
import { parseQwen2Config } from "#lib/models/qwen2/config";
import { parseRotary } from "#lib/models/rotary-config";
import { rotaryFrequencies } from "#lib/models/rotary-tables";

type Json = Readonly<Record<string, unknown>>;

const small: Json = {
  vocab_size: 32,
  hidden_size: 16,
  intermediate_size: 24,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 8,
  max_position_embeddings: 64,
};
const llama: Json = { ...small, model_type: "llama", architectures: ["LlamaForCausalLM"] };

function failure(json: Json): string {
  try {
    createModel(json);
  } catch (error) {
    if (isLockstepError(error)) return `${error.code} ${error.message}`;
    throw error;
  }
  return "nothing was thrown";
}

test("what changes the arithmetic and is not computed is refused by name", () => {
  const refused: readonly (readonly [Json, RegExp])[] = [
    [{ ...llama, model_type: "mamba" }, /model_type "mamba"/],
    [{ ...llama, quantization_config: { quant_method: "gptq" } }, /quantization_config/],
    [{ ...llama, is_causal: false }, /llama: is_causal = false/],
    [{ ...llama, hidden_act: "relu2" }, /llama: hidden_act = "relu2"/],
    [{ ...llama, pretraining_tp: 2 }, /pretraining_tp = 2/],
    [{ ...llama, rope_scaling: { type: "su", factor: 2 } }, /rope_type = "su"/],
    [
      { ...llama, rope_parameters: { rope_type: "default", partial_rotary_factor: 0.5 } },
      /partial/,
    ],
    [{ ...llama, architectures: ["LlamaForTokenClassification"] }, /LlamaForTokenClassification/],
    [{ ...llama, model_type: "qwen2", layer_types: ["full_attention", "linear"] }, /layer_types/],
    [{ ...llama, model_type: "gemma2", use_bidirectional_attention: true }, /use_bidirectional/],
    [{ ...llama, model_type: "gemma3_text", attn_logit_softcapping: 3 }, /attn_logit_softcapping/],
    [
      { ...llama, model_type: "phi3", rope_scaling: { type: "linear", factor: 2 } },
      /phi3: rope_type = "linear"/,
    ],
    [{ model_type: "gpt2", vocab_size: 9, add_cross_attention: true }, /add_cross_attention/],
    [{ model_type: "bert", is_decoder: true }, /bert: is_decoder = true/],
    [{ model_type: "bert", position_embedding_type: "relative_key" }, /relative_key/],
    [{ model_type: "distilbert", sinusoidal_pos_embds: true }, /sinusoidal_pos_embds/],
    [{ model_type: "roberta", architectures: ["RobertaForCausalLM"] }, /roberta: a causal/],
  ];
  for (const [json, message] of refused) {
    const text = failure(json);
    assert.match(text, /^E_MODEL_UNSUPPORTED /, JSON.stringify(json));
    assert.match(text, message);
  }
});

test("what is no configuration of the model is refused with its key", () => {
  for (const [json, key] of [
    [{ ...llama, hidden_size: undefined }, "hidden_size"],
    [{ ...llama, num_key_value_heads: 3 }, "num_key_value_heads"],
    [{ ...llama, head_dim: 7 }, "head_dim"],
    [{ ...llama, model_type: "qwen2", layer_types: ["full_attention"] }, "layer_types"],
    [{ ...llama, rope_scaling: { rope_type: "linear" } }, "factor"],
    [
      { ...llama, architectures: ["LlamaForSequenceClassification"], problem_type: "ranking" },
      "problem_type",
    ],
  ] as const) {
    assert.match(failure(json), new RegExp(`^E_MODEL_CONFIG .*${key}`), key);
  }
});

test("rates of dropout are those of config.json, else those of transformers' classes", () => {
  const rates = (modelType: string, config: Json = {}, isClassifier = false) =>
    modelDropoutRates({ model_type: modelType, ...config }, isClassifier);
  const tenth = { embeddings: 0.1, attention: 0.1, residual: 0.1 };
  assert.deepEqual(rates("gpt2"), tenth);
  const gpt2 = { resid_pdrop: 0.2, attn_pdrop: 0 };
  assert.deepEqual(rates("gpt2", gpt2, true), { embeddings: 0.1, attention: 0, residual: 0.2 });
  assert.deepEqual(rates("bert"), tenth);
  const bert = { hidden_dropout_prob: 0.3, classifier_dropout: null };
  const allButAttention = { embeddings: 0.3, residual: 0.3, classifier: 0.3 };
  assert.deepEqual(rates("bert", bert, true), { ...allButAttention, attention: 0.1 });
  const roberta = { classifier_dropout: 0 };
  assert.deepEqual(rates("roberta", roberta, true), { ...tenth, classifier: 0 });
  assert.deepEqual(rates("distilbert", {}, true), { ...tenth, classifier: 0.2 });
  assert.deepEqual(rates("llama", { attention_dropout: 0.1, resid_pdrop: 0.2 }), {
    attention: 0.1,
  });
  assert.deepEqual(rates("gemma2", { attention_dropout: null }), { attention: 0 });
  // transformers reads embd_pdrop of Phi-3 and uses it nowhere.
  const phi3 = { resid_pdrop: 0.1, embd_pdrop: 0.5 };
  assert.deepEqual(rates("phi3", phi3), { attention: 0, residual: 0.1 });
  assert.deepEqual(rates("mamba", { dropout: 0.1 }), {});
  for (const value of [1, -0.1, "0.1"]) {
    assert.throws(() => rates("gpt2", { attn_pdrop: value }), /gpt2.*attn_pdrop/);
  }
});

test("the head follows the class in architectures", () => {
  const taskOf = (modelType: string, name?: string): Model["task"] =>
    createModel({
      ...small,
      model_type: modelType,
      ...(name === undefined ? {} : { architectures: [name] }),
    }).task;
  assert.equal(taskOf("llama"), "causal-lm");
  assert.equal(taskOf("llama", "LlamaModel"), "feature-extraction");
  assert.equal(taskOf("bert"), "feature-extraction");
  assert.equal(taskOf("bert", "BertForMaskedLM"), "feature-extraction");
  assert.equal(taskOf("qwen3", "Qwen3ForSequenceClassification"), "sequence-classification");
  const named = createModel(
    { ...llama, id2label: { 0: "a", 1: "b", 2: "c" } },
    { task: "sequence-classification" },
  );
  assert.equal(named.numLabels, 3);
});

test("layers have windows where the defaults of their model say so", () => {
  const windows = (config: DecoderConfig) => config.layers.map(({ window }) => window);
  const layers = (count: number): Json => ({ ...small, num_hidden_layers: count });
  assert.deepEqual(windows(parseGemma2Config(layers(3))), [4096, null, 4096]);
  assert.deepEqual(windows(parseGemma3Config({ ...layers(7), sliding_window: 512 })), [
    512,
    512,
    512,
    512,
    512,
    null,
    512,
  ]);
  assert.deepEqual(windows(parseMistralConfig(layers(1))), [4096]);
  assert.deepEqual(windows(parseMistralConfig({ ...layers(1), sliding_window: null })), [null]);
  const qwen = { ...layers(3), sliding_window: 8, max_window_layers: 1 };
  assert.deepEqual(windows(parseQwen2Config(qwen)), [null, null, null]);
  assert.deepEqual(windows(parseQwen2Config({ ...qwen, use_sliding_window: true })), [null, 8, 8]);
});

test("Gemma 3 turns local and global layers by angles of their own, in both generations of files", () => {
  const v4 = {
    ...small,
    rope_theta: 1e6,
    rope_local_base_freq: 1e4,
    rope_scaling: { rope_type: "linear", factor: 8 },
    sliding_window_pattern: 2,
  };
  const v5 = {
    ...small,
    layer_types: ["sliding_attention", "full_attention"],
    rope_parameters: {
      sliding_attention: { rope_type: "default", rope_theta: 1e4 },
      full_attention: { rope_type: "linear", factor: 8, rope_theta: 1e6 },
    },
  };
  const rotaries = (json: Json) => parseGemma3Config(json).layers.map(({ rotary }) => rotary);
  assert.deepEqual(rotaries(v4), rotaries(v5));
  assert.deepEqual(rotaries(v4), [
    { type: "default", theta: 1e4, width: 8 },
    { type: "linear", theta: 1e6, width: 8, factor: 8 },
  ]);
});

test("rotary parameters of both generations mean the same", () => {
  const read = (json: Json) =>
    parseRotary("llama", new ConfigReader("llama", json), {
      headDim: 8,
      theta: 10_000,
      maxPositions: 64,
    });
  assert.deepEqual(
    read({ rope_theta: 500, rope_scaling: { type: "linear", factor: 4 } }),
    read({ rope_parameters: { rope_type: "linear", rope_theta: 500, factor: 4 } }),
  );
  assert.deepEqual(read({ rope_theta: 500 }), read({ rope_parameters: { rope_theta: 500 } }));
  assert.deepEqual(read({ rope_scaling: null }), { type: "default", theta: 10_000, width: 8 });
});

test("dynamic frequencies change with the length only beyond the model's positions", () => {
  const dynamic = {
    type: "dynamic",
    theta: 10_000,
    width: 8,
    factor: 2,
    maxPositions: 16,
  } as const;
  const plain = rotaryFrequencies({ type: "default", theta: 10_000, width: 8 }, 16).frequencies;
  assert.deepEqual(rotaryFrequencies(dynamic, 16).frequencies, plain);
  const grown = rotaryFrequencies(dynamic, 32).frequencies;
  // base 10000 * (2 * 32 / 16 - 1)^(8 / 6)
  const base = 10_000 * 3 ** (8 / 6);
  grown.forEach((frequency, i) => {
    assert.ok(Math.abs(frequency * base ** ((2 * i) / 8) - 1) < 1e-6);
  });
});

test("weights are found without the base model's prefix and under their first names", () => {
  const gpt2 = createModel({
    model_type: "gpt2",
    vocab_size: 9,
    n_embd: 4,
    n_head: 2,
    n_layer: 1,
    n_positions: 8,
  });
  const bare = gpt2.weights.map(({ name, shape }) => ({
    name: name.replace("transformer.", ""),
    shape,
  }));
  const masks = [
    { name: "h.0.attn.bias", shape: [1, 1, 8, 8] },
    { name: "h.0.attn.masked_bias", shape: [] },
    { name: "lm_head.weight", shape: [9, 4] },
  ];
  const resolved = resolveWeights(gpt2, [...bare, ...masks]);
  assert.equal(resolved.get("transformer.wte.weight"), "wte.weight");
  assert.equal(resolved.get("transformer.h.0.attn.c_attn.bias"), "h.0.attn.c_attn.bias");

  const bert = createModel({ ...small, model_type: "bert" });
  const first = bert.weights.map(({ name, shape }) => ({
    name: name
      .replace(/LayerNorm\.weight$/, "LayerNorm.gamma")
      .replace(/LayerNorm\.bias$/, "LayerNorm.beta"),
    shape,
  }));
  const heads = [
    { name: "cls.predictions.bias", shape: [32] },
    { name: "bert.pooler.dense.weight", shape: [16, 16] },
    { name: "bert.embeddings.position_ids", shape: [1, 64] },
  ];
  assert.equal(
    resolveWeights(bert, [...first, ...heads]).get("bert.embeddings.LayerNorm.bias"),
    "bert.embeddings.LayerNorm.beta",
  );

  const codeOf = (run: () => unknown): string => {
    try {
      run();
    } catch (error) {
      return isLockstepError(error) ? error.code : String(error);
    }
    return "nothing was thrown";
  };
  assert.equal(
    codeOf(() => resolveWeights(gpt2, bare.slice(1))),
    "E_MODEL_TENSOR_MISSING",
  );
  assert.equal(
    codeOf(() => resolveWeights(gpt2, [...bare, { name: "adapter.weight", shape: [1] }])),
    "E_MODEL_TENSOR_UNKNOWN",
  );
});
