import type { DeviceKinds } from "#coordinator/device-kinds";
import type { PrecisionChoice } from "./precision.js";
import { resumedPrecision } from "./resume.js";
import { mayBeFinished, type RunStart } from "./start.js";

/**
 * What `bf16: auto` and `fp16: auto` are: what they were, for a run that goes on or is done, and else what the device
 * of most workers says.
 *
 * @param detail gets a line where that is waited for
 */
export async function choosePrecision(
  start: RunStart,
  kinds: DeviceKinds,
  detail: (text: string) => void,
): Promise<PrecisionChoice> {
  const { resume, output, left, config } = start;
  if (left !== undefined) return { ...left.halfTypes, reason: "as before" };
  if (resume !== undefined) return resumedPrecision(resume);
  if (output.record !== undefined && mayBeFinished(start)) {
    const { bf16, fp16 } = output.record.identity.settings;
    const reason = `as the result in ${output.directory}`;
    return { bf16: bf16 === true, fp16: fp16 === true, reason };
  }
  const key = config.bf16 === "auto" ? "bf16" : "fp16";
  detail(`waiting for ${kinds.awaited}: their device decides ${key}: auto`);
  const device = await kinds.device();
  const { advisesBf16: bf16, advisesFp16: fp16, deviceKind: reason } = device;
  return { bf16, fp16, reason };
}
