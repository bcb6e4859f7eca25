import { copyFile, link, mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { writeModelDirectory } from "#lib/checkpoint/model-directory";
import type { SavedTensor } from "#lib/checkpoint/written-weights";
import type { ParameterLayout } from "#lib/core/parameter-layout";
import { isOfTaskHead, taskPrefix } from "#lib/core/task-heads";
import type { SavedContent } from "./kind.js";
import type { StartingModel, TaskModel } from "./model.js";

/**
 * Writes a whole model: the weights that were trained, and those of the checkpoint that stayed. Tasks with a head of
 * their own have models of their own in folders.
 */
export async function saveWholeModel(
  directory: string,
  model: StartingModel,
  trained: ParameterLayout,
  content: SavedContent,
): Promise<void> {
  const slots = new Map(trained.tensors.map((slot) => [slot.name, slot]));
  const stayed = model.weights.filter(({ name }) => !slots.has(name));
  const tensors: readonly SavedTensor[] = [
    ...trained.tensors.map((slot) => ({
      ...{ name: slot.name, shape: slot.shape, read: () => content.valuesOf(slot) },
      kept: content.keptOf?.(slot),
    })),
    ...stayed.map(({ name, shape }) => ({ name, shape, read: () => model.read(name) })),
  ];
  const own = tensors.filter(({ name }) => !isOfTaskHead(name));
  await writeWhole(directory, model, own, model.configChanges, content);
  for (const task of model.taskModels ?? []) {
    const folder = join(directory, taskPrefix(task.task));
    // The run's model itself is written already.
    const written = task.prefix === "" ? await readdir(directory, { withFileTypes: true }) : [];
    await mkdir(folder, { recursive: true });
    if (task.prefix === "") {
      for (const item of written.filter((entry) => entry.isFile())) {
        await linkOrCopy(join(directory, item.name), join(folder, item.name));
      }
    } else {
      const configChanges = { ...model.configChanges, ...task.configChanges };
      await writeWhole(folder, model, tensorsOf(task, tensors), configChanges, content);
    }
  }
}

/** Those of a task's model, under the names that it has for them. */
function tensorsOf(task: TaskModel, tensors: readonly SavedTensor[]): readonly SavedTensor[] {
  const { prefix, isOfBase } = task;
  const head = tensors
    .filter(({ name }) => name.startsWith(prefix))
    .map((tensor) => ({ ...tensor, name: tensor.name.slice(prefix.length) }));
  const isOfHead = new Set(head.map(({ name }) => name));
  const base = tensors.filter(
    ({ name }) => !isOfTaskHead(name) && !isOfHead.has(name) && isOfBase(name),
  );
  return [...base, ...head];
}

const writeWhole = (
  directory: string,
  model: StartingModel,
  tensors: readonly SavedTensor[],
  configChanges: StartingModel["configChanges"],
  { dtype, maxShardBytes, openTarget }: SavedContent,
): Promise<void> =>
  writeModelDirectory(directory, {
    ...{ sourceDir: model.directory, dtype, configChanges, maxShardBytes, tensors },
    openTarget,
  });

/** The same bytes under a second name, where the file system has links. */
async function linkOrCopy(from: string, to: string): Promise<void> {
  await link(from, to).catch(() => copyFile(from, to));
}
