import type { DecoderConfig } from "#lib/models/decoder/config";
import { tokenEmbedding } from "#lib/models/decoder/facts";
import { finalNormName, layerModules } from "#lib/models/decoder/weights";
import {
  float32,
  type GgufScalar,
  type LlamaCppModel,
  type LlamaCppTensor,
  type Refuse,
  type TensorForm,
  uint32,
} from "./kind.js";
import { ropeMetadata } from "./rope.js";

/** What llama.cpp's graph of an architecture computes, where the family differs. */
interface Architecture {
  readonly name: string;
  /** Rotates neighbours of a head, so that rows of Q and K are put so. */
  readonly interleaves?: true;
  /** Takes biases of these projections. */
  readonly biases?: "queries-keys-values" | "all";
  /** Layers with a window: all but each one whose number, from 1, this divides. */
  readonly windowPeriod?: number;
  /** Heads are as wide as the model together. */
  readonly headsFillWidth?: true;
  readonly tiesHead?: true;
  readonly softcaps?: "both" | "logits";
  readonly rotaryTypes: readonly string[];
}

const architectures: Readonly<Record<string, Architecture>> = {
  llama: {
    ...{ name: "llama", interleaves: true, biases: "all" },
    rotaryTypes: ["default", "linear", "llama3", "yarn"],
  },
  mistral: {
    ...{ name: "llama", interleaves: true },
    rotaryTypes: ["default", "linear", "llama3", "yarn"],
  },
  qwen2: {
    ...{ name: "qwen2", biases: "queries-keys-values", headsFillWidth: true },
    rotaryTypes: ["default", "linear", "yarn"],
  },
  qwen3: { name: "qwen3", rotaryTypes: ["default", "linear", "yarn"] },
  gemma2: {
    ...{ name: "gemma2", windowPeriod: 2, tiesHead: true, softcaps: "both" },
    rotaryTypes: ["default"],
  },
  gemma3_text: {
    ...{ name: "gemma3", windowPeriod: 6, softcaps: "logits" },
    rotaryTypes: ["default", "linear"],
  },
  phi3: { name: "phi3", headsFillWidth: true, rotaryTypes: ["default", "longrope"] },
};

/**
 * A decoder of Llama's family as llama.cpp's convert_hf_to_gguf.py writes it. What llama.cpp's graph of the architecture
 * does not compute is refused.
 */
export function decoderInLlamaCpp(config: DecoderConfig, refuse: Refuse): LlamaCppModel {
  const architecture =
    architectures[config.modelType] ?? refuse(`llama.cpp knows no ${config.modelType}`);
  checkArithmetic(config, architecture, refuse);
  const windows = config.layers.map(({ window }) => window);
  const window = windows.find((each) => each !== null) ?? null;
  const global = config.layers.find((layer) => layer.window === null) ?? config.layers[0];
  const local = config.layers.find((layer) => layer.window !== null);
  const isGemma3 = architecture.name === "gemma3";
  const rope = ropeMetadata(
    (global as DecoderConfig["layers"][number]).rotary,
    isGemma3 ? local?.rotary : undefined,
    config,
    refuse,
  );
  const readsWindow = architecture.windowPeriod !== undefined;
  return {
    architecture: architecture.name,
    metadata: {
      block_count: uint32(config.layers.length),
      context_length: uint32(config.maxPositions),
      embedding_length: uint32(config.hiddenSize),
      feed_forward_length: uint32(config.intermediateSize),
      vocab_size: uint32(config.vocabSize),
      "attention.head_count": uint32(config.numHeads),
      "attention.head_count_kv": uint32(config.numKeyValueHeads),
      "attention.key_length": uint32(config.headDim),
      "attention.value_length": uint32(config.headDim),
      "attention.layer_norm_rms_epsilon": float32(config.normEpsilon),
      ...rope.metadata,
      ...softcaps(config),
      // Phi-4 is known to llama.cpp by a window of 0.
      ...(readsWindow || architecture.name === "phi3"
        ? { "attention.sliding_window": uint32(window ?? 0) }
        : {}),
    },
    tensors: tensorsOf(config, architecture),
    vectors: rope.vectors,
    warnings:
      window === null || readsWindow || window >= config.maxPositions
        ? []
        : [
            `llama.cpp has no window for ${architecture.name}: texts of more than ${window} tokens go on otherwise there`,
          ],
  };
}

function softcaps({ attentionSoftcap, logitSoftcap }: DecoderConfig): Record<string, GgufScalar> {
  return {
    ...(attentionSoftcap === null ? {} : { attn_logit_softcapping: float32(attentionSoftcap) }),
    ...(logitSoftcap === null ? {} : { final_logit_softcapping: float32(logitSoftcap) }),
  };
}

function checkArithmetic(config: DecoderConfig, architecture: Architecture, refuse: Refuse): void {
  const { name, biases, windowPeriod, softcaps: caps } = architecture;
  const isGemma = windowPeriod !== undefined;
  const { activation, numHeads, headDim, hiddenSize, layers } = config;
  const activations = isGemma
    ? ["gelu_pytorch_tanh", "gelu_new", "gelu_fast", "gelu_python_tanh", "gelu_accurate"]
    : ["silu", "swish"];
  if (!activations.includes(activation))
    refuse(`llama.cpp's ${name} does not compute ${activation}`);
  if (
    (config.queryKeyValueBias && biases === undefined) ||
    (config.outputBias && biases !== "all")
  ) {
    refuse(`llama.cpp's ${name} has no biases of attention`);
  }
  if (config.mlpBias && biases !== "all") refuse(`llama.cpp's ${name} has no biases of the MLP`);
  if (architecture.headsFillWidth === true && numHeads * headDim !== hiddenSize) {
    refuse(`llama.cpp's ${name} has heads of ${hiddenSize / numHeads} elements, not ${headDim}`);
  }
  if (architecture.tiesHead === true && !config.tieWordEmbeddings) {
    refuse(`llama.cpp's ${name} has no head of its own`);
  }
  if (caps === "both" && (config.attentionSoftcap === null || config.logitSoftcap === null)) {
    refuse(`llama.cpp's ${name} has softcaps for attention and logits`);
  }
  if (caps !== "both" && config.attentionSoftcap !== null) refuse("its attention has a softcap");
  if (Math.abs(config.attentionScale * Math.sqrt(headDim) - 1) > 1e-6) {
    checkGemmaScale(config, name, refuse);
  }
  for (const [layer, { window, rotary }] of layers.entries()) {
    if (!architecture.rotaryTypes.includes(rotary.type)) {
      refuse(`llama.cpp's ${name} does not turn by positions of the type ${rotary.type}`);
    }
    if (isGemma && (window !== null) !== ((layer + 1) % windowPeriod !== 0)) {
      refuse(
        `llama.cpp's ${name} has a window in all layers but one of ${windowPeriod}, and layer ${layer} differs`,
      );
    }
  }
}

/** The largest Gemmas divide scores by another root, and llama.cpp knows them by their number of layers. */
const largestGemma: Readonly<Record<string, number>> = { gemma2: 46, gemma3: 62 };

function checkGemmaScale(
  { attentionScale, hiddenSize, numHeads, layers }: DecoderConfig,
  name: string,
  refuse: Refuse,
): void {
  const ofLargest = 1 / Math.sqrt(Math.floor(hiddenSize / numHeads));
  const isLargest = layers.length === largestGemma[name];
  if (isLargest && Math.abs(attentionScale / ofLargest - 1) < 1e-6) return;
  refuse(`llama.cpp's ${name} divides scores by another root (query_pre_attn_scalar)`);
}

function tensorsOf(config: DecoderConfig, { interleaves }: Architecture): LlamaCppTensor[] {
  const tensors: LlamaCppTensor[] = [];
  const asIs: TensorForm = { kind: "as-is" };
  const add = (source: string, name: string, form: TensorForm, alwaysFloat32: boolean): void => {
    tensors.push({ source, name, form, alwaysFloat32 });
  };
  const norm = (module: string, name: string): void =>
    add(
      `${module}.weight`,
      `${name}.weight`,
      config.normOffset === 1 ? { kind: "plus-one" } : asIs,
      true,
    );
  const projection = (
    module: string,
    name: string,
    bias: boolean,
    form: TensorForm = asIs,
  ): void => {
    add(`${module}.weight`, `${name}.weight`, form, false);
    if (bias) add(`${module}.bias`, `${name}.bias`, form, true);
  };
  const turned: TensorForm =
    interleaves === true ? { kind: "interleaved", headDim: config.headDim } : asIs;
  add(tokenEmbedding, "token_embd.weight", asIs, false);
  for (const layer of config.layers.keys()) {
    const names = layerModules(layer);
    const block = `blk.${layer}`;
    norm(names.attentionNorm, `${block}.attn_norm`);
    if (config.fusedProjections) {
      projection(names.queryKeyValue, `${block}.attn_qkv`, config.queryKeyValueBias);
    } else {
      projection(names.query, `${block}.attn_q`, config.queryKeyValueBias, turned);
      projection(names.key, `${block}.attn_k`, config.queryKeyValueBias, turned);
      projection(names.value, `${block}.attn_v`, config.queryKeyValueBias);
    }
    if (config.queryKeyNorms) {
      norm(names.queryNorm, `${block}.attn_q_norm`);
      norm(names.keyNorm, `${block}.attn_k_norm`);
    }
    projection(names.output, `${block}.attn_output`, config.outputBias);
    if (config.sandwichNorms) {
      norm(names.postAttentionNorm, `${block}.post_attention_norm`);
      norm(names.preMlpNorm, `${block}.ffn_norm`);
      norm(names.postMlpNorm, `${block}.post_ffw_norm`);
    } else norm(names.postAttentionNorm, `${block}.ffn_norm`);
    if (config.fusedProjections) {
      projection(names.gateUp, `${block}.ffn_up`, config.mlpBias);
    } else {
      projection(names.gate, `${block}.ffn_gate`, config.mlpBias);
      projection(names.up, `${block}.ffn_up`, config.mlpBias);
    }
    projection(names.down, `${block}.ffn_down`, config.mlpBias);
  }
  norm(finalNormName.replace(/\.weight$/, ""), "output_norm");
  if (!config.tieWordEmbeddings) add("lm_head.weight", "output.weight", asIs, false);
  return tensors;
}
