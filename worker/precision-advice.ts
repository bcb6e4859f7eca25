import type { PrecisionAdvice } from "#lib/core/processor";
import { bf16SlowdownOf } from "#lib/graph/device-probe";
import type { DeviceTelemetry } from "./telemetry.js";

/**
 * What `bf16: auto` is on a device, and what bfloat16 costs where it is forced on a processor that has no
 * instructions for it: measured once, in a process of its own.
 *
 * @param threads of the worker
 */
export function precisionAdvice(
  { deviceType, hasBf16Products: bf16 }: Pick<DeviceTelemetry, "deviceType" | "hasBf16Products">,
  threads: number,
): PrecisionAdvice {
  const isFast = bf16 || deviceType === "gpu";
  return { bf16, bf16Slowdown: isFast ? undefined : bf16SlowdownOf(threads) };
}
