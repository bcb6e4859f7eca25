import { hasOneDnnBf16, readProcessor } from "#lib/core/processor";
import { loadBinding } from "./binding.js";
import type { GraphDtype } from "./builder.js";

let known: boolean | undefined;
let assumed: boolean | undefined;

/**
 * Whether the device has kernels of bfloat16 that are float32 inside and round only their results: oneDNN's
 * where the processor has AVX-512, and CUDA's. Without them TensorFlow takes Eigen's, which add and take
 * exponentials in bfloat16, with errors of several percent, and whose products are slower than those of
 * float32; and oneDNN, asked all the same, may end the process. May load the engine.
 */
export function hasBf16Kernels(): boolean {
  if (assumed !== undefined) return assumed;
  known ??= hasOneDnnBf16(readProcessor()) || loadBinding().isUsingGpuDevice();
  return known;
}

/** For tests: graphs as on a device that has kernels of both half types, or of none; undefined: this device's. */
export function assumeHalfKernels(assumption: boolean | undefined): void {
  assumed = assumption;
}

/**
 * Whether the device multiplies matrices of this type, with sums in float32. Processors have no such products
 * of float16 in TensorFlow: Eigen's also add in float16.
 */
export function hasProducts(dtype: GraphDtype): boolean {
  if (dtype === "bfloat16") return hasBf16Kernels();
  return dtype !== "float16" || (assumed ?? loadBinding().isUsingGpuDevice());
}

/**
 * Whether functions that XLA compiles may hold this type: for x86-64 it has no code that converts float16 where
 * the processor has no instruction for it, and says so when the first step runs.
 */
export function hasConversions(dtype: GraphDtype): boolean {
  if (dtype !== "float16" || loadBinding().isUsingGpuDevice()) return true;
  const { arch, flags } = readProcessor();
  return arch !== "x64" || flags.has("avx");
}

/** Whether the softmax of this type is float32 inside. */
export const hasWideSoftmax = (dtype: GraphDtype): boolean =>
  dtype === "float32" || (dtype === "bfloat16" && hasBf16Kernels());
