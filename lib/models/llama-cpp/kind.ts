/** A value of a GGUF file's metadata. */
export type GgufScalar =
  | { readonly type: "uint32"; readonly value: number }
  | { readonly type: "float32"; readonly value: number }
  | { readonly type: "string"; readonly value: string };

/** How a weight changes on its way into a GGUF file. */
export type TensorForm =
  | { readonly kind: "as-is" }
  /** [inputs, outputs] becomes [outputs, inputs]. */
  | { readonly kind: "transposed" }
  /** Norm weights that are kept around 0 here (Gemma). */
  | { readonly kind: "plus-one" }
  /** Rows of each head, whose halves turn together here, so that neighbours do. */
  | { readonly kind: "interleaved"; readonly headDim: number };

export interface LlamaCppTensor {
  /** The weight's name in transformers. */
  readonly source: string;
  /** The name that llama.cpp gives it. */
  readonly name: string;
  readonly form: TensorForm;
  /** Kept in float32 whatever type the file has. */
  readonly alwaysFloat32: boolean;
}

/** A model in the words of llama.cpp. */
export interface LlamaCppModel {
  /** `general.architecture` */
  readonly architecture: string;
  /** By key without the architecture's prefix. */
  readonly metadata: Readonly<Record<string, GgufScalar>>;
  readonly tensors: readonly LlamaCppTensor[];
  /** Vectors that are computed, float32: divisors of rotary frequencies. */
  readonly vectors: Readonly<Record<string, Float32Array>>;
  /** What llama.cpp does otherwise, for a person. */
  readonly warnings: readonly string[];
}

export const uint32 = (value: number): GgufScalar => ({ type: "uint32", value });
export const float32 = (value: number): GgufScalar => ({ type: "float32", value });
export const text = (value: string): GgufScalar => ({ type: "string", value });

/** Throws what says that llama.cpp does not compute this. */
export type Refuse = (problem: string) => never;
