import { LockstepError } from "#lib/core/errors/index";
import { maxGgufLayers } from "#lib/checkpoint/limits";
import { GgufMetadata } from "./metadata.js";
import type { GgufFile, GgufTensor } from "./reader.js";
import { checkRopeFactors, readRopeScaling, type RopeScaling } from "./rope.js";

/** The hyperparameters of a Llama model, as GGUF metadata gives them. */
export interface LlamaHyperparameters {
  readonly numLayers: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numHeads: number;
  readonly numKeyValueHeads: number;
  readonly headDim: number;
  readonly vocabSize: number;
  readonly maxPositions: number;
  readonly rmsNormEpsilon: number;
  readonly ropeTheta: number;
  readonly ropeScaling: RopeScaling | undefined;
  readonly hasAttentionBias: boolean;
  readonly hasMlpBias: boolean;
  readonly isTied: boolean;
}

/** How one GGUF tensor becomes one of transformers' LlamaForCausalLM. */
export interface TensorMapping {
  readonly source: GgufTensor;
  readonly name: string;
  /** Set for Q and K: rows of a head that are to be put into half-split rotary order. */
  readonly rotaryHeadDim?: number;
}

export async function readLlama(gguf: GgufFile): Promise<{
  readonly hyperparameters: LlamaHyperparameters;
  readonly mappings: readonly TensorMapping[];
}> {
  const metadata = new GgufMetadata(gguf);
  requireLlama(gguf, metadata);
  const hyperparameters = await readHyperparameters(gguf, metadata);
  return { hyperparameters, mappings: mapTensors(gguf, hyperparameters) };
}

function requireLlama(gguf: GgufFile, metadata: GgufMetadata): void {
  const architecture = metadata.optionalString("general.architecture") ?? "";
  const fail = (problem: string): never => {
    throw new LockstepError("E_GGUF_ARCHITECTURE", { file: gguf.file, architecture, problem });
  };
  if (architecture !== "llama") fail('only the architecture "llama" is supported');
  if ((metadata.optionalInteger("llama.expert_count", 0, 1e6) ?? 0) > 0) {
    fail("it is a mixture of experts");
  }
}

async function readHyperparameters(
  gguf: GgufFile,
  metadata: GgufMetadata,
): Promise<LlamaHyperparameters> {
  const width = 1_000_000;
  const hiddenSize = metadata.integer("llama.embedding_length", 1, width);
  const numHeads = metadata.integer("llama.attention.head_count", 1, width);
  const numKeyValueHeads =
    metadata.optionalInteger("llama.attention.head_count_kv", 1, numHeads) ?? numHeads;
  if (numHeads % numKeyValueHeads !== 0) {
    metadata.fail("llama.attention.head_count_kv", `does not divide the ${numHeads} heads`);
  }
  const headDim =
    metadata.optionalInteger("llama.attention.key_length", 2, width) ?? hiddenSize / numHeads;
  if (!Number.isInteger(headDim) || headDim % 2 !== 0) {
    metadata.fail("llama.attention.head_count", `gives heads of odd or broken size ${headDim}`);
  }
  for (const key of ["llama.attention.value_length", "llama.rope.dimension_count"]) {
    const size = metadata.optionalInteger(key, 1, width) ?? headDim;
    if (size !== headDim) metadata.fail(key, `is ${size}, but only the head size ${headDim} works`);
  }
  const ropeTheta = metadata.optionalPositive("llama.rope.freq_base") ?? 10_000;
  const embedding = requireTensor(gguf, "token_embd.weight");
  return {
    numLayers: metadata.integer("llama.block_count", 1, maxGgufLayers),
    hiddenSize,
    intermediateSize: metadata.integer("llama.feed_forward_length", 1, width),
    numHeads,
    numKeyValueHeads,
    headDim,
    vocabSize: embedding.shape[0] as number,
    maxPositions: metadata.integer("llama.context_length", 1, 1e9),
    rmsNormEpsilon: metadata.positive("llama.attention.layer_norm_rms_epsilon"),
    ropeTheta,
    ropeScaling: await checkRopeFactors(
      gguf,
      metadata,
      readRopeScaling(metadata),
      ropeTheta,
      headDim,
    ),
    hasAttentionBias: gguf.tensors.has("blk.0.attn_q.bias"),
    hasMlpBias: gguf.tensors.has("blk.0.ffn_gate.bias"),
    isTied: !gguf.tensors.has("output.weight"),
  };
}

/**
 * Names and expected shapes of all tensors, in the order of transformers' state dict. A missing
 * tensor, another shape or one that is left over is an error: the result would be another model.
 */
function mapTensors(gguf: GgufFile, h: LlamaHyperparameters): readonly TensorMapping[] {
  const mappings: TensorMapping[] = [];
  const used = new Set<string>(["rope_freqs.weight"]);
  const add = (
    sourceName: string,
    name: string,
    shape: readonly number[],
    rotaryHeadDim?: number,
  ): void => {
    const source = requireTensor(gguf, sourceName);
    used.add(sourceName);
    if (source.shape.join() !== shape.join()) {
      const problem = `has shape [${source.shape.join(", ")}], but the metadata asks for [${shape.join(", ")}]`;
      throw new LockstepError("E_GGUF_TENSOR", { file: gguf.file, tensor: sourceName, problem });
    }
    mappings.push({ source, name, ...(rotaryHeadDim === undefined ? {} : { rotaryHeadDim }) });
  };
  const queryRows = h.numHeads * h.headDim;
  const keyRows = h.numKeyValueHeads * h.headDim;
  const { hiddenSize: d, intermediateSize: ffn } = h;
  const linear = (
    source: string,
    name: string,
    rows: number,
    columns: number,
    hasBias: boolean,
    rotaryHeadDim?: number,
  ): void => {
    add(`${source}.weight`, `${name}.weight`, [rows, columns], rotaryHeadDim);
    if (hasBias) add(`${source}.bias`, `${name}.bias`, [rows], rotaryHeadDim);
  };
  add("token_embd.weight", "model.embed_tokens.weight", [h.vocabSize, d]);
  for (let i = 0; i < h.numLayers; i++) {
    const [from, to] = [`blk.${i}`, `model.layers.${i}`];
    const { hasAttentionBias: attentionBias, hasMlpBias: mlpBias } = h;
    linear(`${from}.attn_q`, `${to}.self_attn.q_proj`, queryRows, d, attentionBias, h.headDim);
    linear(`${from}.attn_k`, `${to}.self_attn.k_proj`, keyRows, d, attentionBias, h.headDim);
    linear(`${from}.attn_v`, `${to}.self_attn.v_proj`, keyRows, d, attentionBias);
    linear(`${from}.attn_output`, `${to}.self_attn.o_proj`, d, queryRows, attentionBias);
    linear(`${from}.ffn_gate`, `${to}.mlp.gate_proj`, ffn, d, mlpBias);
    linear(`${from}.ffn_up`, `${to}.mlp.up_proj`, ffn, d, mlpBias);
    linear(`${from}.ffn_down`, `${to}.mlp.down_proj`, d, ffn, mlpBias);
    add(`${from}.attn_norm.weight`, `${to}.input_layernorm.weight`, [d]);
    add(`${from}.ffn_norm.weight`, `${to}.post_attention_layernorm.weight`, [d]);
  }
  add("output_norm.weight", "model.norm.weight", [d]);
  if (!h.isTied) add("output.weight", "lm_head.weight", [h.vocabSize, d]);
  for (const name of gguf.tensors.keys()) {
    if (!used.has(name)) {
      throw new LockstepError("E_GGUF_TENSOR", {
        file: gguf.file,
        tensor: name,
        problem: "has no place in a Llama model",
      });
    }
  }
  return mappings;
}

function requireTensor(gguf: GgufFile, name: string): GgufTensor {
  const tensor = gguf.tensors.get(name);
  if (tensor !== undefined) return tensor;
  throw new LockstepError("E_TENSOR_MISSING", { where: gguf.file, tensor: name });
}
