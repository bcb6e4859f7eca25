/** Element types that travel or are stored. tfjs itself only knows float32 and int32. */
export type FloatDtype = "float32" | "bfloat16" | "float16";
export type WireDtype = "float32" | "bfloat16";
/** Arithmetic of matrix products: float32 exactly, or bfloat16 with float32 accumulation. */
export type Precision = "fp32" | "bf16";

export const bytesPerElement: Readonly<Record<FloatDtype, number>> = Object.freeze({
  float32: 4,
  bfloat16: 2,
  float16: 2,
});
