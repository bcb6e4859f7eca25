import type { KeptArray } from "#lib/core/shard-arrays";
import { encodeElements } from "./elements.js";
import { writeSafetensors } from "./safetensors-writer.js";

/** A float32 tensor in memory; `data` may lie on a SharedArrayBuffer. */
export interface NamedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** One that may be elsewhere. */
interface KeptTensor extends Omit<NamedTensor, "data"> {
  readonly data: KeptArray;
}

/** Writes float32 tensors (optimizer moments, say) as a safetensors file, straight from their memory. */
export async function writeTensors(
  file: string,
  tensors: readonly KeptTensor[],
  options: Parameters<typeof writeSafetensors>[3] = {},
): Promise<void> {
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  await writeSafetensors(
    file,
    tensors.map(({ name, shape }) => ({ name, shape, dtype: "F32" })),
    (name) => {
      const { data } = byName.get(name) as KeptTensor;
      return encodeElements(data, "float32", name);
    },
    options,
  );
}
