/** Element types that travel or are stored. tfjs itself only knows float32 and int32. */
export type FloatDtype = "float32" | "bfloat16" | "float16";
export type WireDtype = FloatDtype;
/** Arithmetic of matrix products: float32 exactly, or bfloat16 or float16 with float32 accumulation. */
export type Precision = "fp32" | "bf16" | "fp16";

/** What products take and give. */
export const computeDtypes: Readonly<Record<Precision, FloatDtype>> = Object.freeze({
  fp32: "float32",
  bf16: "bfloat16",
  fp16: "float16",
});

/** Half types, each for what a device has or a run computes in. */
export type HalfTypes = Readonly<Record<"bf16" | "fp16", boolean>>;

/** What matrix products are computed in. */
export const precisionOf = ({ bf16, fp16 }: HalfTypes): Precision =>
  bf16 ? "bf16" : fp16 ? "fp16" : "fp32";

export const bytesPerElement: Readonly<Record<FloatDtype, number>> = Object.freeze({
  float32: 4,
  bfloat16: 2,
  float16: 2,
});
