import { join } from "node:path";
import { isLockstepError, LockstepError } from "#lib/core/errors/index";
import { openBottleneckDirectory } from "./adapter-hub/index.js";
import type { AddedTensors } from "./added-tensors.js";
import { isRecord, readJsonFile } from "./file-reader.js";
import { maxConfigBytes } from "./limits.js";
import { AdapterDirectory, openPromptDirectory, readLoraConfig } from "./peft/index.js";

const configFileName = "adapter_config.json";

/** Adapters that are no change of the model's own weights, by what tells them apart: how each is opened. */
const addedKinds: readonly {
  readonly what: string;
  readonly isIt: (config: Readonly<Record<string, unknown>>) => boolean;
  readonly open: (directory: string) => Promise<AddedTensors>;
  /** The key that names the base model. */
  readonly baseKey: string;
}[] = [
  {
    what: "virtual tokens (prompt tuning)",
    isIt: ({ peft_type: type }) => typeof type === "string" && /^prompt_tuning$/i.test(type),
    open: openPromptDirectory,
    baseKey: "base_model_name_or_path",
  },
  {
    what: "bottleneck adapters",
    isIt: ({ peft_type: type, config, model_type: modelType }) =>
      type === undefined && isRecord(config) && typeof modelType === "string",
    open: openBottleneckDirectory,
    baseKey: "model_name",
  },
];

async function kindOf(directory: string) {
  const file = join(directory, configFileName);
  const json = await readJsonFile(file, "adapter configuration", maxConfigBytes);
  const config = isRecord(json) ? json : {};
  return { config, kind: addedKinds.find(({ isIt }) => isIt(config)) };
}

/**
 * Opens what a directory adds to its base model beside the weights.
 *
 * @returns undefined for LoRA, which is added into them
 * @throws E_ADAPTER_UNSUPPORTED, E_ADAPTER_CONFIG, E_ADAPTER_TENSOR
 */
export async function openAddedTensors(directory: string): Promise<AddedTensors | undefined> {
  const { kind } = await kindOf(directory);
  return kind?.open(directory);
}

/** What an adapter that is no change of the base model's weights is, in words; undefined: it may be one. */
export async function addedKindOf(directory: string): Promise<string | undefined> {
  return (await kindOf(directory)).kind?.what;
}

/** @throws E_ADAPTER_UNMERGEABLE for what is no change of the base model's weights */
export async function refuseUnmergeable(directory: string): Promise<void> {
  const what = await addedKindOf(directory);
  if (what !== undefined) throw new LockstepError("E_ADAPTER_UNMERGEABLE", { directory, what });
}

/**
 * What an adapter is, in words, and what keeps it from being merged into its base model; undefined: nothing that its
 * own files tell.
 */
export async function describeAdapter(
  directory: string,
): Promise<{ readonly what: string; readonly obstacle: string | undefined }> {
  try {
    const what = await addedKindOf(directory);
    if (what !== undefined) return { what, obstacle: "no weight of a model can hold what it adds" };
    const adapter = await AdapterDirectory.open(directory);
    await adapter.close();
    return { what: adapter.config.use_dora ? "DoRA" : "LoRA", obstacle: undefined };
  } catch (error) {
    if (!isLockstepError(error)) throw error;
    return { what: "of a kind that is not read here", obstacle: error.message.replace(/\.$/, "") };
  }
}

/** The base model that an adapter names. @throws E_FILE_NOT_FOUND, E_JSON_FILE, E_ADAPTER_UNSUPPORTED, E_ADAPTER_CONFIG */
export async function readAdapterBase(
  directory: string,
): Promise<{ readonly name: string | null; readonly revision: string | null }> {
  const { config, kind } = await kindOf(directory);
  if (kind === undefined) {
    const { config: lora } = await readLoraConfig(directory);
    return { name: lora.base_model_name_or_path, revision: lora.revision };
  }
  const { [kind.baseKey]: name, revision } = config;
  return {
    name: typeof name === "string" ? name : null,
    revision: typeof revision === "string" ? revision : null,
  };
}
