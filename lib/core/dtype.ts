import { type Nf4Form, nf4GroupBytes, nf4GroupElements } from "./nf4.js";

/** Element types that travel or are stored. tfjs itself only knows float32 and int32. */
export type FloatDtype = "float32" | "bfloat16" | "float16";
export type WireDtype = FloatDtype;
/** Forms in which a space travels: a type, or for weights that stay as they are a code of 4 bits. */
export type WireForm = WireDtype | Nf4Form;
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

/** Bytes of an element, on average over those that a form keeps together. */
export const wireBytesPerElement: Readonly<Record<WireForm, number>> = Object.freeze({
  ...bytesPerElement,
  nf4: nf4GroupBytes.nf4 / nf4GroupElements,
  "nf4-double": nf4GroupBytes["nf4-double"] / nf4GroupElements,
});

export const isNf4 = (form: WireForm): form is Nf4Form => form === "nf4" || form === "nf4-double";
