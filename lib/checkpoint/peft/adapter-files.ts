import { existsSync } from "node:fs";
import { join } from "node:path";
import { LockstepError } from "#lib/core/errors/index";
import { readJsonFile } from "#lib/checkpoint/file-reader";
import { maxConfigBytes } from "#lib/checkpoint/limits";
import { weightsFileName, weightsIndexFileName } from "#lib/checkpoint/model-weights";
import { adapterConfigFileName, type ParsedLoraConfig, parseLoraConfig } from "./lora-config.js";

/**
 * The config.json of the classifier that an adapter makes of its base model, with the names of the
 * classes. It is no config.json: beside one, transformers takes an adapter's directory for a whole model.
 */
export const classifierConfigFileName = "classifier_config.json";

/**
 * Whether a directory holds an adapter instead of a model.
 *
 * @throws E_MODEL_DIRECTORY where it holds both
 */
export function isAdapterDirectory(directory: string): boolean {
  const has = (name: string): boolean => existsSync(join(directory, name));
  if (!has(adapterConfigFileName)) return false;
  const weights = [weightsFileName, weightsIndexFileName].find(has);
  if (weights === undefined) return true;
  const problem = `it holds a model (${weights}) and an adapter (${adapterConfigFileName}), and either may be meant; put the adapter's files into a directory of their own`;
  throw new LockstepError("E_MODEL_DIRECTORY", { directory, problem });
}

/** @throws E_FILE_NOT_FOUND, E_JSON_FILE, E_ADAPTER_UNSUPPORTED, E_ADAPTER_CONFIG */
export async function readLoraConfig(directory: string): Promise<ParsedLoraConfig> {
  const file = join(directory, adapterConfigFileName);
  return parseLoraConfig(await readJsonFile(file, "adapter configuration", maxConfigBytes), file);
}
