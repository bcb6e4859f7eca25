import { type NamedTensor, openSafetensors } from "#lib/checkpoint/index";

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
