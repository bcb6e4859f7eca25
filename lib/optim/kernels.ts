import { readFile } from "node:fs/promises";

/**
 * Exports of lib/optim/assembly/kernels.ts, ema.ts and ewc.ts; the module has those of the optimizers beside them. Pointers are
 * byte offsets, `n` is a number of elements.
 */
export interface Kernels {
  setBfloat16(sum: number, wire: number, n: number): void;
  addBfloat16(sum: number, wire: number, n: number): void;
  setFloat16(sum: number, wire: number, n: number): void;
  addFloat16(sum: number, wire: number, n: number): void;
  addFloat32(sum: number, wire: number, n: number): void;
  sumOfSquares(values: number, n: number): number;
  toBfloat16(p: number, out: number, n: number): void;
  toFloat16(p: number, out: number, n: number): void;
  addPenalty(
    sum: number,
    p: number,
    fisher: number,
    anchor: number,
    n: number,
    factor: number,
  ): number;
  sumOf(values: number, n: number): number;
  scaleBy(values: number, n: number, factor: number): void;
  updateAverage(p: number, average: number, n: number, weight: number): void;
}

let compiled: Promise<WebAssembly.Module> | undefined;

/** Compiled once a thread. */
async function kernelModule(): Promise<WebAssembly.Module> {
  compiled ??= readFile(new URL("./kernels.wasm", import.meta.url)).then(async (bytes) =>
    WebAssembly.compile(bytes),
  );
  return compiled;
}

/** @param memory shared; the kernels work on it in place. */
export async function instantiateKernels(memory: WebAssembly.Memory): Promise<Kernels> {
  const instance = await WebAssembly.instantiate(await kernelModule(), { env: { memory } });
  return instance.exports as unknown as Kernels;
}
