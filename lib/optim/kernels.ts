import { readFile } from "node:fs/promises";

/** Exports of lib/optim/assembly/kernels.ts. Pointers are byte offsets, `n` is a number of elements. */
export interface Kernels {
  setBfloat16(sum: number, wire: number, n: number): void;
  addBfloat16(sum: number, wire: number, n: number): void;
  addFloat32(sum: number, wire: number, n: number): void;
  sumOfSquares(values: number, n: number): number;
  setAdamWFactors(
    gradientScale: number,
    oneMinusBeta1: number,
    beta2: number,
    oneMinusBeta2: number,
    negativeStepSize: number,
    biasCorrection2Sqrt: number,
    epsilon: number,
  ): void;
  setDecayFactor(decayFactor: number): void;
  adamWToBfloat16(p: number, m: number, v: number, g: number, out: number, n: number): void;
  adamWToFloat32(p: number, m: number, v: number, g: number, out: number, n: number): void;
  setSgdFactors(gradientScale: number, momentum: number, negativeLearningRate: number): void;
  setCoupledDecay(coupledDecay: number): void;
  sgd(p: number, m: number, g: number, n: number): void;
  toBfloat16(p: number, out: number, n: number): void;
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
