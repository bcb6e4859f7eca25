import { writeModelDirectory } from "#lib/checkpoint/model-directory";
import type { ParameterLayout } from "#lib/core/parameter-layout";
import type { SavedContent } from "./kind.js";
import type { StartingModel } from "./model.js";

/** Writes a whole model: the weights that were trained, and those of the checkpoint that stayed. */
export async function saveWholeModel(
  directory: string,
  model: StartingModel,
  trained: ParameterLayout,
  { valuesOf, dtype, maxShardBytes }: SavedContent,
): Promise<void> {
  const slots = new Map(trained.tensors.map((slot) => [slot.name, slot]));
  const stayed = model.weights.filter(({ name }) => !slots.has(name));
  await writeModelDirectory(directory, {
    sourceDir: model.directory,
    dtype,
    configChanges: model.configChanges,
    maxShardBytes,
    tensors: [
      ...trained.tensors.map((slot) => ({ ...slot, read: () => valuesOf(slot) })),
      ...stayed.map(({ name, shape }) => ({ name, shape, read: () => model.read(name) })),
    ],
  });
}
