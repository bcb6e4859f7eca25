import { cpuCount } from "#lib/core/cpu-count";
import { memoryTotalBytes } from "#lib/core/machine-memory";
import type { DeviceReading } from "./options.js";

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
