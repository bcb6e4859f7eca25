import { cpuCount } from "#lib/core/cpu-count";
import { hasBf16Kernels } from "#lib/graph/bf16-kernels";
import { bf16SlowdownOf } from "#lib/graph/device-probe";

/** Tells whoever asks for bfloat16 on a device without kernels of it what that costs. */
export function tellSlowBf16(): void {
  if (hasBf16Kernels()) return;
  const slowdown = bf16SlowdownOf(cpuCount());
  const cost =
    slowdown === undefined
      ? "are not faster"
      : `take ${slowdown.toFixed(2)} times the time of float32, beside casting every weight`;
  process.stderr.write(
    `warning: this processor has no instructions for bfloat16, whose products ${cost}; without --bf16 it computes in float32\n`,
  );
}
