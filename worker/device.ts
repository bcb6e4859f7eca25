import { readFileSync } from "node:fs";
import os from "node:os";
import { cpuCount } from "#lib/core/cpu-count";
import type { DeviceReading } from "./options.js";

/** Instruction sets that choose other kernels, and so other bits. */
const decisiveFlags = [
  "avx",
  "avx2",
  "fma",
  "avx512f",
  "avx512bw",
  "avx512_vnni",
  "avx512_bf16",
  "avx512_fp16",
  "avx_vnni",
  "amx_tile",
  "amx_bf16",
];

/** What of this machine's processor decides the bits of a result. */
export function processorKind(): string {
  let flags = new Set<string>();
  try {
    const line = /^(?:flags|Features)\s*:(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"));
    flags = new Set((line?.[1] ?? "").trim().split(/\s+/));
  } catch {
    // No such file outside Linux: the model name is then all there is.
    return `cpu/${os.arch()}/${os.cpus()[0]?.model ?? "unknown"}`;
  }
  const found = decisiveFlags.filter((flag) => flags.has(flag));
  return `cpu/${os.arch()}/${found.join("+") || "baseline"}`;
}

/** Memory of the machine, or of the container where that has less. */
export const memoryTotalBytes = (): number =>
  Math.min(os.totalmem(), process.constrainedMemory() || Number.POSITIVE_INFINITY);

/**
 * This process' share of the processor since the call before, and its memory.
 *
 * @param threads compute threads of the process, where it does not own all processors
 */
export function createProcessorReader(threads = cpuCount()): () => DeviceReading {
  let usageBefore = process.cpuUsage();
  let timeBefore = performance.now();
  return () => {
    const usage = process.cpuUsage();
    const time = performance.now();
    const busyMs = (usage.user - usageBefore.user + usage.system - usageBefore.system) / 1000;
    const utilization = busyMs / Math.max(1, (time - timeBefore) * threads);
    usageBefore = usage;
    timeBefore = time;
    return {
      utilization: Math.min(1, utilization),
      memoryUsedBytes: process.memoryUsage.rss(),
      memoryTotalBytes: memoryTotalBytes(),
    };
  };
}
