import { readFileSync } from "node:fs";

/** oneDNN's variable that keeps a process from newer instructions. */
export const ceilingVariable = "ONEDNN_MAX_CPU_ISA";

/** oneDNN's names of instruction sets in their order, with what of each decides rows and peers. */
const levels = [
  { names: ["SSE41", "AVX"], flags: [] },
  { names: ["AVX2", "AVX2_VNNI", "AVX2_VNNI_2"], flags: ["avx2"] },
  { names: ["AVX512_CORE", "AVX512_CORE_VNNI"], flags: ["avx512f"] },
  { names: ["AVX512_CORE_BF16", "AVX512_CORE_FP16"], flags: ["avx512_bf16"] },
  { names: ["AVX512_CORE_AMX", "AVX512_CORE_AMX_FP16"], flags: ["amx_bf16"] },
] as const;

export interface Processor {
  /** Decisive instruction sets that are used: those that are there, below the ceiling. */
  readonly flags: ReadonlySet<string>;
  /** The level that the environment set, where it takes something away. */
  readonly ceiling: string | undefined;
}

/** @param info what /proc/cpuinfo holds */
export function readProcessor(
  env: Readonly<Record<string, string | undefined>> = process.env,
  info = readFileSync("/proc/cpuinfo", "utf8"),
): Processor {
  const present = new Set(/^flags\s*:(.*)$/m.exec(info)?.[1]?.trim().split(/\s+/));
  const all = levels.flatMap(({ flags }) => flags).filter((flag) => present.has(flag));
  const ceiling = (env[ceilingVariable] ?? "").toUpperCase();
  const top = levels.findIndex(({ names }) => (names as readonly string[]).includes(ceiling));
  const allowed = new Set<string>(
    (top < 0 ? levels : levels.slice(0, top + 1)).flatMap(({ flags }) => flags),
  );
  const flags = all.filter((flag) => allowed.has(flag));
  return { flags: new Set(flags), ceiling: flags.length === all.length ? undefined : ceiling };
}

/** Whether it multiplies bfloat16 faster than float32. */
export const hasBf16Products = ({ flags }: Processor): boolean =>
  flags.has("avx512_bf16") || flags.has("amx_bf16");
