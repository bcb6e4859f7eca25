import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { writeModelDirectory } from "#lib/checkpoint/index";
import { createModel } from "#lib/models/index";
import { testValues } from "#tests/support/compare";

const sizes = {
  ...{ hidden_size: 64, intermediate_size: 96, num_attention_heads: 4, num_key_value_heads: 2 },
  ...{ num_hidden_layers: 2, max_position_embeddings: 128, rms_norm_eps: 1e-5 },
  ...{ bos_token_id: 1, eos_token_id: 0, pad_token_id: null },
};
const llama3 = {
  ...{ rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4 },
  original_max_position_embeddings: 8192,
};
const yarn = { rope_type: "yarn", factor: 4, original_max_position_embeddings: 16 };
const gemma = { hidden_activation: "gelu_pytorch_tanh", head_dim: 16, query_pre_attn_scalar: 16 };

/** Every architecture of decoders that GGUF has, with what their files may have beside the usual: config.json by name. */
export const randomDecoders: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  llama: {
    ...{ model_type: "llama", attention_bias: true, mlp_bias: true, head_dim: 32 },
    ...{ rope_scaling: llama3, tie_word_embeddings: true },
  },
  mistral: {
    ...{ model_type: "mistral", sliding_window: null, head_dim: 16 },
    ...{ rope_scaling: yarn, tie_word_embeddings: false },
  },
  qwen2: { model_type: "qwen2", tie_word_embeddings: true },
  qwen3: { model_type: "qwen3", head_dim: 32 },
  gemma2: {
    ...{ model_type: "gemma2", ...gemma, sliding_window: 8, num_hidden_layers: 3 },
    ...{ attn_logit_softcapping: 5.5, final_logit_softcapping: 3.5 },
  },
  gemma3: {
    ...{ model_type: "gemma3_text", ...gemma, sliding_window: 8, num_hidden_layers: 7 },
    ...{ rope_theta: 20_000, rope_local_base_freq: 500 },
    rope_scaling: { rope_type: "linear", factor: 4 },
  },
  phi3: {
    ...{ model_type: "phi3", pad_token_id: 0, partial_rotary_factor: 0.5 },
    // llama.cpp decides between the factors by its context, which is of 256 tokens at least.
    ...{ original_max_position_embeddings: 256, max_position_embeddings: 512 },
    rope_scaling: {
      ...{ type: "longrope", short_factor: [1, 1.1, 1.2, 1.3], long_factor: [1, 2, 3, 4] },
    },
  },
  gpt2: {
    ...{ model_type: "gpt2", n_embd: 64, n_head: 4, n_layer: 2, n_positions: 128, n_ctx: 128 },
    activation_function: "gelu_new",
    layer_norm_epsilon: 1e-5,
  },
};

/** Names of classes that are not the type's with a capital letter. */
const classes: Readonly<Record<string, string>> = {
  gemma3_text: "Gemma3ForCausalLM",
  gpt2: "GPT2LMHeadModel",
};

/** A model of random weights with the tokenizer of another directory. */
export async function writeRandomDecoder(
  target: string,
  changes: Readonly<Record<string, unknown>>,
  tokenizerDir: string,
): Promise<void> {
  const source = `${target}-source`;
  await mkdir(source, { recursive: true });
  await mkdir(target, { recursive: true });
  const { vocab_size } = JSON.parse(await readFile(join(tokenizerDir, "config.json"), "utf8")) as {
    readonly vocab_size: number;
  };
  const type = String(changes["model_type"]);
  const architecture = classes[type] ?? `${type[0]?.toUpperCase()}${type.slice(1)}ForCausalLM`;
  const config = { ...sizes, ...changes, vocab_size, architectures: [architecture] };
  await writeFile(join(source, "config.json"), JSON.stringify(config));
  const tensors = createModel(config, { task: "causal-lm" }).weights.map(({ name, shape }, i) => ({
    ...{ name, shape },
    read: () => {
      const values = testValues(
        shape.reduce((product, dim) => product * dim, 1),
        i + 1,
      );
      // Norm weights about 1, or about 0 where the model adds 1.
      const isNorm = /norm|ln_/.test(name) && name.endsWith(".weight");
      const isGemma = type.startsWith("gemma");
      if (isNorm) return values.map((value) => (isGemma ? 0 : 1) + 0.3 * value);
      // Gemma's embeddings are multiplied by 8, and its head is the same: it would repeat a token.
      const scale = isGemma && name.includes("embed") ? 0.02 : 0.4;
      return values.map((value) => scale * value);
    },
  }));
  await writeModelDirectory(target, { sourceDir: source, tokenizerDir, tensors, dtype: "float32" });
}
