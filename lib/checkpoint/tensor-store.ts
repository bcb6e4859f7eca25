import { openSafetensors } from "./safetensors-file.js";
import { writeSafetensors } from "./safetensors-writer.js";

/** A float32 tensor in memory; `data` may lie on a SharedArrayBuffer. */
export interface NamedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

/** Writes float32 tensors (optimizer moments, say) as a safetensors file, straight from their memory. */
export async function writeTensors(
  file: string,
  tensors: readonly NamedTensor[],
  metadata?: Readonly<Record<string, string>>,
): Promise<void> {
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  await writeSafetensors(
    file,
    tensors.map(({ name, shape }) => ({ name, shape, dtype: "F32" })),
    (name) => {
      const { data } = byName.get(name) as NamedTensor;
      return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    },
    metadata === undefined ? {} : { metadata },
  );
}

/** Reads all tensors of a file as float32, in name order. The whole file is in memory afterwards. */
export async function readTensors(file: string): Promise<{
  readonly tensors: ReadonlyMap<string, NamedTensor>;
  readonly metadata: Readonly<Record<string, string>>;
}> {
  const opened = await openSafetensors(file);
  try {
    const tensors = new Map<string, NamedTensor>();
    for (const name of [...opened.tensors.keys()].sort()) {
      const data = await opened.readFloat32(name);
      tensors.set(name, { name, shape: opened.info(name).shape, data });
    }
    return { tensors, metadata: opened.metadata };
  } finally {
    await opened.close();
  }
}
