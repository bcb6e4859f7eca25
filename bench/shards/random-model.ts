import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { importGguf, writeSafetensors } from "#lib/checkpoint/index";
import { packageRoot } from "#lib/core/paths";

export interface ModelShape {
  readonly hidden: number;
  readonly layers: number;
  readonly intermediate: number;
  readonly heads: number;
  readonly vocabulary: number;
}

const pieceBytes = 8 << 20;

/** A Llama with random bfloat16 weights, a piece in memory at a time, and a small tokenizer. @returns its parameters */
export async function writeRandomModel(directory: string, shape: ModelShape): Promise<number> {
  await importGguf(join(packageRoot, "tests/fixtures/tiny-gguf/tiny.gguf"), directory);
  const { hidden, layers, intermediate, heads, vocabulary } = shape;
  const file = join(directory, "config.json");
  const config = JSON.parse(await readFile(file, "utf8")) as Record<string, unknown>;
  const changed = {
    ...config,
    ...{ hidden_size: hidden, num_hidden_layers: layers, intermediate_size: intermediate },
    ...{ num_attention_heads: heads, num_key_value_heads: heads, head_dim: hidden / heads },
    ...{ vocab_size: vocabulary, tie_word_embeddings: true },
  };
  await writeFile(file, JSON.stringify(changed));
  const square = [hidden, hidden];
  const tensors: [string, number[]][] = [
    ["model.embed_tokens.weight", [vocabulary, hidden]],
    ["model.norm.weight", [hidden]],
    ...Array.from({ length: layers }, (_, i): [string, number[]][] =>
      (
        [
          ["input_layernorm", [hidden]],
          ["post_attention_layernorm", [hidden]],
          ["self_attn.q_proj", square],
          ["self_attn.k_proj", square],
          ["self_attn.v_proj", square],
          ["self_attn.o_proj", square],
          ["mlp.gate_proj", [intermediate, hidden]],
          ["mlp.up_proj", [intermediate, hidden]],
          ["mlp.down_proj", [hidden, intermediate]],
        ] as [string, number[]][]
      ).map(([part, dims]) => [`model.layers.${i}.${part}.weight`, dims]),
    ).flat(),
  ];
  const sizeOf = (dims: readonly number[]): number => dims.reduce((size, dim) => size * dim, 1);
  const shapes = new Map(tensors);
  await writeSafetensors(
    join(directory, "model.safetensors"),
    tensors.map(([name, dims]) => ({ name, shape: dims, dtype: "BF16" })),
    (name) => randomPieces(sizeOf(shapes.get(name) ?? []) * 2),
  );
  return tensors.reduce((sum, [, dims]) => sum + sizeOf(dims), 0);
}

/** Small numbers of either sign. */
function* randomPieces(numBytes: number): Generator<Uint8Array> {
  const words = new Uint32Array(Math.min(pieceBytes, Math.ceil(numBytes / 4) * 4) / 4);
  let state = numBytes >>> 0;
  for (let done = 0; done < numBytes; done += words.byteLength) {
    for (let i = 0; i < words.length; i++) {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      words[i] = 0x3c003c00 | (state & 0x80ff80ff);
    }
    yield new Uint8Array(words.buffer, 0, Math.min(words.byteLength, numBytes - done));
  }
}
