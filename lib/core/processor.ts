import { readFileSync } from "node:fs";
import os from "node:os";
import { join } from "node:path";
import { nearestName } from "./edit-distance.js";
import { LockstepError } from "./errors/index.js";

type Environment = Readonly<Record<string, string | undefined>>;

/** oneDNN's variable that keeps it, and here the whole engine, from newer instructions. */
export const ceilingVariable = "ONEDNN_MAX_CPU_ISA";

interface Level {
  /** What the level adds, as /proc/cpuinfo names it; only what chooses other kernels. */
  readonly flags: readonly string[];
  /** The highest level that XLA's `--xla_cpu_max_isa` knows below it. */
  readonly xla: string;
}

/** oneDNN's names of instruction sets, each with those before it. */
const levels: ReadonlyMap<string, Level> = new Map([
  ["SSE41", { flags: ["sse4_1"], xla: "SSE4_2" }],
  ["AVX", { flags: ["avx"], xla: "AVX" }],
  ["AVX2", { flags: ["avx2", "fma"], xla: "AVX2" }],
  ["AVX2_VNNI", { flags: ["avx_vnni"], xla: "AVX2" }],
  ["AVX2_VNNI_2", { flags: ["avx_ne_convert", "avx_vnni_int8"], xla: "AVX2" }],
  ["AVX512_CORE", { flags: ["avx512f", "avx512bw", "avx512dq", "avx512vl"], xla: "AVX512" }],
  ["AVX512_CORE_VNNI", { flags: ["avx512_vnni"], xla: "AVX512_VNNI" }],
  ["AVX512_CORE_BF16", { flags: ["avx512_bf16"], xla: "AVX512_BF16" }],
  ["AVX512_CORE_FP16", { flags: ["avx512_fp16"], xla: "AVX512_BF16" }],
  ["AVX512_CORE_AMX", { flags: ["amx_tile", "amx_int8", "amx_bf16"], xla: "AMX" }],
  ["AVX512_CORE_AMX_FP16", { flags: ["amx_fp16"], xla: "AMX_FP16" }],
]);
/** Words that set no ceiling. */
const noCeiling = new Set(["", "ALL", "DEFAULT"]);

const decisiveFlags: readonly string[] = [...levels.values()].flatMap(({ flags }) => flags);

/** What of a processor decides the bits of a result and the speed of a type. */
export interface Processor {
  /** Node's name of the architecture. */
  readonly arch: string;
  /** "AuthenticAMD 25.17", or the model's name where there is no /proc/cpuinfo. */
  readonly model: string;
  /** Decisive instruction sets that are used: those that are there, below the ceiling. */
  readonly flags: ReadonlySet<string>;
  /** Sizes of the caches of the first core, by which kernels cut their blocks: "32K 32K 1024K". */
  readonly caches: string;
  /** The level that the environment set, where it takes something away. */
  readonly ceiling: string | undefined;
}

/**
 * Reads the processor that computes.
 *
 * @param env holds the ceiling
 * @param root of /proc and /sys
 * @throws E_ENGINE_ENVIRONMENT for a ceiling that oneDNN does not know: it would ignore it
 */
export function readProcessor(env: Environment = process.env, root = "/"): Processor {
  const info = readText(join(root, "proc/cpuinfo"));
  const field = (name: string): string =>
    new RegExp(`^${name}\\s*:(.*)$`, "m").exec(info)?.[1]?.trim() ?? "";
  const present = new Set((field("flags") || field("Features")).split(/\s+/));
  const all = decisiveFlags.filter((flag) => present.has(flag));
  const ceiling = ceilingOf(env);
  const allowed = ceiling === undefined ? new Set(all) : flagsUpTo(ceiling);
  const flags = all.filter((flag) => allowed.has(flag));
  const identity = `${field("vendor_id")} ${field("cpu family")}.${field("model")}`;
  return {
    arch: os.arch(),
    model: identity.trim() === "." ? (os.cpus()[0]?.model ?? "unknown") : identity,
    flags: new Set(flags),
    caches: [0, 1, 2, 3]
      .map((index) => readText(join(root, `sys/devices/system/cpu/cpu0/cache/index${index}/size`)))
      .map((size) => size.trim())
      .filter((size) => size !== "")
      .join(" "),
    ceiling: flags.length === all.length ? undefined : ceiling,
  };
}

/** Everything of a processor that decides the bits: two of one kind compute the same. */
export function processorKind({ arch, model, flags, caches, ceiling }: Processor): string {
  const parts = [
    `cpu/${arch}/${[...flags].join("+") || "baseline"}`,
    model,
    ...(caches === "" ? [] : [`caches ${caches}`]),
    ...(ceiling === undefined ? [] : [`${ceilingVariable}=${ceiling}`]),
  ];
  return parts.join(", ");
}

/** Whether it multiplies bfloat16 faster than float32. */
export const hasBf16Products = ({ flags }: Processor): boolean =>
  flags.has("avx512_bf16") || flags.has("amx_bf16");

/** What a device says of itself to whoever has to choose a type. */
export interface PrecisionAdvice {
  /** What `bf16: auto` is on this device. */
  readonly bf16: boolean;
  /** What `fp16: auto` is on it, where bf16 is not chosen. */
  readonly fp16: boolean;
  /** How many times the time of float32 products those of bfloat16 take, where that is not less. */
  readonly bf16Slowdown: number | undefined;
  /** The same of float16, where it was measured. */
  readonly fp16Slowdown: number | undefined;
}

/** Whether oneDNN has kernels of bfloat16 for it: TensorFlow and oneDNN ask for AVX-512. */
export const hasOneDnnBf16 = ({ flags }: Processor): boolean => flags.has("avx512f");

/** XLA's name of the same ceiling. */
export const xlaCeiling = (ceiling: string): string | undefined => levels.get(ceiling)?.xla;

function ceilingOf(env: Environment): string | undefined {
  // oneDNN reads its old name where the new one is not set.
  const given = env[ceilingVariable] ?? env["DNNL_MAX_CPU_ISA"] ?? "";
  const name = given.toUpperCase();
  if (noCeiling.has(name)) return undefined;
  if (levels.has(name)) return name;
  const near = nearestName(name, [...levels.keys()]);
  throw new LockstepError("E_ENGINE_ENVIRONMENT", {
    variable: ceilingVariable,
    value: given,
    expected: near === undefined ? `one of ${[...levels.keys()].join(", ")}` : `${near}, perhaps`,
  });
}

function flagsUpTo(ceiling: string): ReadonlySet<string> {
  const allowed = new Set<string>();
  for (const [name, { flags }] of levels) {
    for (const flag of flags) allowed.add(flag);
    if (name === ceiling) break;
  }
  return allowed;
}

function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    // No such file outside Linux, or where /sys is not mounted.
    return "";
  }
}
