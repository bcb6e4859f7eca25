import { join } from "node:path";
import { copyTokenizer, writeChangedConfig } from "#lib/checkpoint/model-directory";
import { classifierConfigFileName } from "#lib/checkpoint/peft/index";
import type { StartingModel } from "./model.js";

/** Writes what an adapter's directory has beside it: the base model's tokenizer and, of a classifier, its classes. */
export async function saveBeside(directory: string, model: StartingModel): Promise<void> {
  await copyTokenizer(model.directory, directory);
  if (!model.isClassifier) return;
  const file = join(directory, classifierConfigFileName);
  await writeChangedConfig(file, model.directory, model.configChanges);
}
