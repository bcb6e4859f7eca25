import type { GgufMetadata } from "./metadata.js";
import type { GgufFile } from "./reader.js";
import { tensorTypes } from "./tensor-types.js";

/** transformers' rope scaling entry without its theta. */
export interface RopeScaling {
  readonly rope_type: "linear" | "llama3";
  readonly factor: number;
  readonly low_freq_factor?: number;
  readonly high_freq_factor?: number;
  readonly original_max_position_embeddings?: number;
}

/** What every Llama 3.1 and 3.2 model has; the file itself holds only the resulting factors. */
const llama3 = {
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 8192,
} as const;

/**
 * Finds how rotary frequencies are scaled: not at all, linearly (metadata), or as in Llama 3, whose
 * divisors lie in `rope_freqs.weight` and are checked against the formula they must come from.
 */
export async function checkRopeFactors(
  gguf: GgufFile,
  metadata: GgufMetadata,
  scaling: RopeScaling | undefined,
  ropeTheta: number,
  headDim: number,
): Promise<RopeScaling | undefined> {
  const tensor = gguf.tensors.get("rope_freqs.weight");
  if (tensor === undefined) return scaling;
  const numFrequencies = headDim / 2;
  if (tensor.type !== "F32" || tensor.shape.join() !== String(numFrequencies)) {
    metadata.fail("rope_freqs.weight", `is not a vector of ${numFrequencies} float32 values`);
  }
  const bytes = new Uint8Array(tensor.sizeBytes);
  await gguf.readTensorBytes(tensor, 0, bytes);
  const divisors = new Float32Array(numFrequencies);
  tensorTypes["F32"]?.decode(bytes, divisors);
  const factor = Math.max(...divisors);
  for (const [i, divisor] of divisors.entries()) {
    const expected = llama3Divisor(ropeTheta ** ((-2 * i) / headDim), factor);
    if (!(Math.abs(divisor - expected) <= 1e-3 * expected)) {
      metadata.fail("rope_freqs.weight", "holds frequency factors that are not those of Llama 3");
    }
  }
  return { rope_type: "llama3", factor, ...llama3 };
}

/** Divisor of one rotary frequency: transformers' `_compute_llama3_parameters`. */
export function llama3Divisor(frequency: number, factor: number): number {
  const { low_freq_factor: low, high_freq_factor: high } = llama3;
  const turns = (llama3.original_max_position_embeddings * frequency) / (2 * Math.PI);
  if (turns > high) return 1;
  if (turns < low) return factor;
  const smooth = (turns - low) / (high - low);
  return 1 / ((1 - smooth) / factor + smooth);
}

/** The scaling that the metadata names, before `rope_freqs.weight` is looked at. */
export function readRopeScaling(metadata: GgufMetadata): RopeScaling | undefined {
  const type = metadata.optionalString("llama.rope.scaling.type") ?? "none";
  if (type === "none") {
    // Before scaling types had names, a bare factor meant linear scaling.
    const factor = metadata.optionalPositive("llama.rope.scale_linear") ?? 1;
    return factor === 1 ? undefined : { rope_type: "linear", factor };
  }
  if (type !== "linear") {
    metadata.fail("llama.rope.scaling.type", `is "${type}"; none and linear are supported`);
  }
  return { rope_type: "linear", factor: metadata.positive("llama.rope.scaling.factor") };
}
