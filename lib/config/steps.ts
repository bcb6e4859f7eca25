import type { ResolvedConfig } from "./resolve.js";

/** transformers' rule: 1 and above are steps, below 1 a fraction of the run, rounded up. */
export function resolveSteps(value: number, totalSteps: number): number {
  return value < 1 ? Math.ceil(value * totalSteps) : value;
}

/**
 * Steps between two logs, evaluations or checkpoints; 0 where the strategy is "no" or "best".
 *
 * @param stepsPerEpoch a whole number: the last, shorter step of an epoch counts
 */
export function intervalSteps(
  config: ResolvedConfig,
  what: "logging" | "eval" | "save",
  totalSteps: number,
  stepsPerEpoch: number,
): number {
  const strategy = config[`${what}_strategy`];
  if (strategy === "no" || strategy === "best") return 0;
  if (strategy === "epoch") return stepsPerEpoch;
  return Math.max(1, resolveSteps(config[`${what}_steps`], totalSteps));
}

/** Steps before the first evaluation: `eval_delay` counts epochs where evaluations come by the epoch. */
export function evaluationDelaySteps(config: ResolvedConfig, stepsPerEpoch: number): number {
  const { eval_delay, eval_strategy } = config;
  return eval_strategy === "epoch" ? eval_delay * stepsPerEpoch : eval_delay;
}

/** Whether numbers of steps, or fractions of a run, are one a multiple of the other; fractions in millionths. */
export function isMultiple(value: number, of: number): boolean {
  if (value >= 1 !== of >= 1) return false;
  const scale = value < 1 ? 1e6 : 1;
  return Math.round(value * scale) % Math.round(of * scale) === 0;
}

const sizeUnits: Readonly<Record<string, number>> = {
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KIB: 2 ** 10,
  MIB: 2 ** 20,
  GIB: 2 ** 30,
  TIB: 2 ** 40,
};

/** Bytes of transformers' `max_shard_size`: a number, or text such as "5GB" or "500MiB"; undefined for others. */
export function parseSizeBytes(size: number | string): number | undefined {
  if (typeof size === "number") return size;
  const match = /^(\d{1,15}(?:\.\d{1,15})?)\s*([KMGT]I?B)$/i.exec(size.trim());
  if (match === null) return undefined;
  const bytes = Math.floor(Number(match[1]) * (sizeUnits[(match[2] ?? "").toUpperCase()] ?? 0));
  return bytes >= 1 && Number.isSafeInteger(bytes) ? bytes : undefined;
}

/** Bytes of a weights file, of a configuration that has been checked. */
export function maxShardBytes(config: ResolvedConfig): number {
  return parseSizeBytes(config.max_shard_size) ?? Number.MAX_SAFE_INTEGER;
}
