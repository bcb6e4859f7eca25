import { readFileSync } from "node:fs";
import type { GraphDtype } from "./builder.js";

/** Whether oneDNN has bfloat16 kernels for a CPU, given /proc/cpuinfo: TensorFlow asks for AVX-512. */
export const hasOneDnnBfloat16 = (cpuInfo: string): boolean =>
  /^flags\s*:.*\bavx512f\b/m.test(cpuInfo);

function readCpuInfo(): string {
  try {
    return readFileSync("/proc/cpuinfo", "utf8");
  } catch {
    return "";
  }
}

const bfloat16IsWide =
  hasOneDnnBfloat16(readCpuInfo()) && process.env["TF_ENABLE_ONEDNN_OPTS"] !== "0";

/**
 * Whether TensorFlow's softmax of this type is float32 inside and rounds only its result: oneDNN's and
 * CUDA's of bfloat16 are, Eigen's adds and takes exponentials in bfloat16, with errors of several percent.
 */
export const hasWideSoftmax = (dtype: GraphDtype): boolean =>
  dtype === "float32" || (dtype === "bfloat16" && bfloat16IsWide);
