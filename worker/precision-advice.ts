import type { HalfTypes } from "#lib/core/dtype";
import type { PrecisionAdvice } from "#lib/core/processor";
import { bf16SlowdownOf, fp16SlowdownOf } from "#lib/graph/device-probe";
import type { DeviceTelemetry } from "./telemetry.js";

/**
 * What `bf16: auto` and `fp16: auto` are on a device, and what half types cost where they are forced on a processor
 * without instructions for bfloat16: measured once, in a process of its own. Where bfloat16 is fast nobody needs
 * float16, and no worker waits for its measurement.
 *
 * @param threads of the worker
 */
export function precisionAdvice(
  device: Pick<DeviceTelemetry, "deviceType" | "hasBf16Products" | "hasFp16Products">,
  threads: number,
): PrecisionAdvice {
  const { deviceType, hasBf16Products: bf16, hasFp16Products: fp16 } = device;
  const isFast = bf16 || deviceType === "gpu";
  return {
    ...{ bf16, fp16 },
    bf16Slowdown: isFast ? undefined : bf16SlowdownOf(threads),
    fp16Slowdown: isFast ? undefined : fp16SlowdownOf(threads),
  };
}

/** What the half type of a run costs on a device that has no instructions for it, measured now if it never was. */
export function slowdownOf(
  { bf16, fp16 }: HalfTypes,
  device: Parameters<typeof precisionAdvice>[0],
  threads: number,
): { readonly bf16Slowdown?: number; readonly fp16Slowdown?: number } {
  if (fp16 && device.deviceType === "cpu") return { fp16Slowdown: fp16SlowdownOf(threads) ?? 0 };
  const bf16Slowdown = bf16 ? precisionAdvice(device, threads).bf16Slowdown : undefined;
  return bf16Slowdown === undefined ? {} : { bf16Slowdown };
}
