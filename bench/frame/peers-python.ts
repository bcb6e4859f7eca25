import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { cacheDirectory, packageRoot } from "#lib/core/paths";
import { ceilingVariable, type Processor, readProcessor } from "#lib/core/processor";

/**
 * The Python of the peers (bench/peers/requirements.txt): $LOCKSTEP_PYTHON_PEERS, a virtual environment
 * or its interpreter, else what `node scripts/setup.mjs --python` left in the cache.
 */
export function peersPython(): string | undefined {
  const own = process.env.LOCKSTEP_PYTHON_PEERS ?? "";
  const requirements = readFileSync(join(packageRoot, "bench/peers/requirements.txt"));
  const digest = createHash("sha256").update(requirements).digest("hex").slice(0, 12);
  const place = own === "" ? join(cacheDirectory(), "peers", digest) : own;
  const python =
    existsSync(place) && statSync(place).isDirectory() ? join(place, "bin/python") : place;
  return existsSync(python) ? python : undefined;
}

/** oneDNN's instruction sets have other names in ATen's own kernels, which torch.compile follows, and in MKL. */
const torchLevels = [
  { flag: "avx512f", aten: "avx512", mkl: "AVX512" },
  { flag: "avx2", aten: "avx2", mkl: "AVX2" },
  { flag: undefined, aten: "default", mkl: "SSE4_2" },
] as const;

/** Holds torch to the ceiling that holds the engine; empty where there is none. */
export function peersCeiling(
  { flags, ceiling }: Pick<Processor, "flags" | "ceiling"> = readProcessor(),
): Readonly<Record<string, string>> {
  if (ceiling === undefined) return {};
  const level = torchLevels.find(({ flag }) => flag === undefined || flags.has(flag));
  return {
    [ceilingVariable]: ceiling,
    ATEN_CPU_CAPABILITY: level?.aten ?? "default",
    MKL_ENABLE_INSTRUCTIONS: level?.mkl ?? "SSE4_2",
  };
}

/**
 * What torch says it computes with, "AVX2" for one; undefined where the peers are not installed.
 * @throws Error if it is not what the ceiling asks for
 */
export function torchCapability(): string | undefined {
  const python = peersPython();
  if (python === undefined) return undefined;
  const ceiling = peersCeiling();
  const told = execFileSync(
    python,
    ["-c", "import torch; print(torch.backends.cpu.get_cpu_capability())"],
    { encoding: "utf8", env: { ...process.env, ...peersEnvironment, ...ceiling } },
  ).trim();
  const asked = ceiling["ATEN_CPU_CAPABILITY"];
  if (asked !== undefined && told.toLowerCase() !== asked) {
    throw new Error(`torch computes with ${told}, not with ${asked}: the ratios would be unfair`);
  }
  return told;
}

/** Nothing is fetched, no GPU is touched, and no bytecode is left in the checkout. */
export const peersEnvironment: Readonly<Record<string, string>> = {
  HF_HUB_OFFLINE: "1",
  TRANSFORMERS_VERBOSITY: "error",
  TQDM_DISABLE: "1",
  CUDA_VISIBLE_DEVICES: "",
  PYTHONDONTWRITEBYTECODE: "1",
};
