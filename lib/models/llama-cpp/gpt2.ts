import type { Gpt2Config } from "#lib/models/gpt2/config";
import { gpt2 } from "#lib/models/gpt2/facts";
import { finalNorm, head, layerModules, positionsName } from "#lib/models/gpt2/weights";
import {
  float32,
  type LlamaCppModel,
  type LlamaCppTensor,
  type Refuse,
  type TensorForm,
  uint32,
} from "./kind.js";

/** GPT-2 as llama.cpp's convert_hf_to_gguf.py writes it. */
export function gpt2InLlamaCpp(config: Gpt2Config, refuse: Refuse): LlamaCppModel {
  const forms = ["gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate"];
  if (!forms.includes(config.activation)) {
    refuse(`llama.cpp's gpt2 does not compute ${config.activation}`);
  }
  if (!config.scaleByHeadWidth || config.scaleByLayer) {
    refuse("llama.cpp's gpt2 divides scores by the root of the heads' width alone");
  }
  return {
    architecture: "gpt2",
    metadata: {
      block_count: uint32(config.numLayers),
      context_length: uint32(config.maxPositions),
      embedding_length: uint32(config.hiddenSize),
      feed_forward_length: uint32(config.intermediateSize),
      vocab_size: uint32(config.vocabSize),
      "attention.head_count": uint32(config.numHeads),
      "attention.layer_norm_epsilon": float32(config.layerNormEpsilon),
    },
    tensors: tensorsOf(config),
    vectors: {},
    warnings: [],
  };
}

function tensorsOf({ numLayers, tieWordEmbeddings }: Gpt2Config): LlamaCppTensor[] {
  const asIs: TensorForm = { kind: "as-is" };
  const module = (
    from: string,
    to: string,
    {
      form = asIs,
      alwaysFloat32 = false,
    }: Partial<Pick<LlamaCppTensor, "form" | "alwaysFloat32">> = {},
  ): LlamaCppTensor[] => [
    { source: `${from}.weight`, name: `${to}.weight`, form, alwaysFloat32 },
    { source: `${from}.bias`, name: `${to}.bias`, form: asIs, alwaysFloat32: true },
  ];
  const norm = (from: string, to: string) => module(from, to, { alwaysFloat32: true });
  const conv1d = (from: string, to: string) => module(from, to, { form: { kind: "transposed" } });
  const table = (source: string, name: string, alwaysFloat32: boolean): LlamaCppTensor => ({
    ...{ source, name, form: asIs, alwaysFloat32 },
  });
  return [
    table(gpt2.tokenEmbedding, "token_embd.weight", false),
    table(positionsName, "position_embd.weight", true),
    ...Array.from({ length: numLayers }, (_, layer) => {
      const names = layerModules(layer);
      const block = `blk.${layer}`;
      return [
        ...norm(names.attentionNorm, `${block}.attn_norm`),
        ...conv1d(names.queryKeyValue, `${block}.attn_qkv`),
        ...conv1d(names.output, `${block}.attn_output`),
        ...norm(names.mlpNorm, `${block}.ffn_norm`),
        ...conv1d(names.up, `${block}.ffn_up`),
        ...conv1d(names.down, `${block}.ffn_down`),
      ];
    }).flat(),
    ...norm(finalNorm, "output_norm"),
    ...(tieWordEmbeddings ? [] : [table(head, "output.weight", false)]),
  ];
}
