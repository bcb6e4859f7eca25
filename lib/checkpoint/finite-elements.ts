import { LockstepError } from "#lib/core/errors/index";
import type { ElementSpan, SafetensorsFile } from "./safetensors-file.js";

/**
 * Elements of a tensor of an adapter, float32. One that is no finite number would spoil every result, and nothing
 * would tell.
 *
 * @throws E_TENSOR_NOT_FINITE, and what reading throws
 */
export async function readFinite(
  file: SafetensorsFile,
  tensor: string,
  into?: Float32Array,
  span?: ElementSpan,
): Promise<Float32Array> {
  const values = await file.readFloat32(tensor, into, span);
  const wrong = values.find((value) => !Number.isFinite(value));
  if (wrong === undefined) return values;
  throw new LockstepError("E_TENSOR_NOT_FINITE", { where: file.file, tensor, value: wrong });
}
