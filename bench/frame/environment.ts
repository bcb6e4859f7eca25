import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { join } from "node:path";
import { cpuCount } from "#lib/core/cpu-count";
import { packageRoot } from "#lib/core/paths";
import { ceilingVariable, hasBf16Products, readProcessor } from "#lib/core/processor";
import { torchCapability } from "./peers-python.js";
import { precisionOfProcessor } from "./precision.js";

/** What a figure depends on beside the code. */
export function describeEnvironment(): string[] {
  const requirements = readFileSync(join(packageRoot, "bench/peers/requirements.txt"), "utf8");
  const wheels = readFileSync(join(packageRoot, "scripts/setup/engine-wheels.mjs"), "utf8");
  const peers = requirements
    .split("\n")
    .filter((line) => /^(torch|transformers|peft|tok)/.test(line));
  return [
    describeHost().join(", "),
    `TensorFlow ${/TENSORFLOW_VERSION = "([^"]+)"/.exec(wheels)?.[1]}`,
    peers.map((line) => line.replace("==", " ")).join(", "),
    `${numThreads()} threads for operations on both sides (TF_NUM_INTRAOP_THREADS, OMP_NUM_THREADS)`,
    `commit ${commit()}`,
  ];
}

/**
 * The precision of the table's rows, and what decided it.
 * @throws Error if torch computes with other instructions than the ceiling allows
 */
export function describePrecision(): string[] {
  const processor = readProcessor();
  const { ceiling } = processor;
  const has = hasBf16Products(processor) ? "has" : "has no";
  const under = ceiling === undefined ? "" : ` under ${ceilingVariable}=${ceiling}`;
  const torch = torchCapability();
  return [
    `${precisionOfProcessor()} on both sides: the processor ${has} products of bfloat16${under}`,
    ...(torch === undefined ? [] : [`torch's kernels: ${torch}`]),
  ];
}

/** Cores, memory, kernel and runtime. */
export const describeHost = (): string[] => [
  `${cpus().length} x ${cpuModel()}`,
  `${(totalmem() / 2 ** 30).toFixed(0)} GiB`,
  `Linux ${release()}`,
  `Node ${process.version}`,
];

/** Threads of an operation: all cores that this process may use, unless the environment says otherwise. */
export const numThreads = (): number => Number(process.env["TF_NUM_INTRAOP_THREADS"] ?? cpuCount());

/** `2x-amd-epyc`, or `2x-amd-epyc-avx2` under a ceiling: the hardware in a file's name. */
export function hardwareName(): string {
  const { ceiling } = readProcessor();
  const model = cpuModel()
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-");
  const parts = [`${cpus().length}x`, model.replace(/^-|-$/g, "")];
  return [...parts, ...(ceiling === undefined ? [] : [ceiling.toLowerCase()])].join("-");
}

const cpuModel = (): string => cpus()[0]?.model.trim() ?? "unknown";

function commit(): string {
  try {
    const git = (...args: string[]): string =>
      execFileSync("git", args, { cwd: packageRoot, encoding: "utf8", stdio: "pipe" }).trim();
    const changed =
      git("status", "--porcelain", "--untracked-files=no") === "" ? "" : " with changes";
    return git("rev-parse", "--short", "HEAD") + changed;
  } catch {
    return "unknown";
  }
}
